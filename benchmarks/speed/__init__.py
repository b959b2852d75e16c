"""sis beside llama.cpp, row by row: what `native_bench.py` is made of.

plan       files, rows and goals, as data
course     what one process measures; the same for both sides, and free of sis
ours       sis as a side
theirs     llama.cpp as a side: its C interface through llama-cpp-python; imports nothing of sis
children   the processes, in turn, and what else used the CPU meanwhile
limits     what the machine could do at most
machine    what the machine is
report     medians, ratios, tables and the plot
"""
