"""The patterns that cut a text into words before bytes are merged, by ``tokenizer.ggml.pre``.

They are facts of the models: published in each one's ``tokenizer.json``, mapped to names and aliases by llama.cpp
(src/llama-vocab.cpp). Patterns are applied in order, each to what the ones before left; what matches and what lies
between is a piece. All of them run in linear time: where the published one backtracks it is written another way here.
"""

from __future__ import annotations

import re

from attrs import frozen

from sis_tokenizers.chunks import BOUNDARY


@frozen
class PreTokenizer:
    """How text is cut.

    Attributes:
        patterns: regular expressions as Oniguruma reads them.
        boundary: ends where the patterns cut, whatever stands before and after: where a long text is parted.
        whole_words: a word that is a token is taken whole, without merging.
        add_bos: a text begins with the begin token where the file does not say.
    """

    patterns: tuple[str, ...]
    boundary: re.Pattern[str] = BOUNDARY
    whole_words: bool = False
    add_bos: bool = False


CONTRACTIONS = "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = f"{CONTRACTIONS}|{WORDS}"
QWEN35 = (
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
MINICPM5 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
SEED_CODER = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+(?!\S)|\s+"
JAIS2 = (
    CONTRACTIONS
    + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    + "".join(rf"\s{{{n}}}(?!\S)|" for n in (512, 256, 128, 64, 32, 16, 8, 4, "1,2"))
    + r"\s"
)
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
WORD = r"[^\r\n\p{L}\p{N}]?"
REST = r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = rf"{WORD}{UPPER}*{LOWER}+|{WORD}{UPPER}+{LOWER}*|\p{{N}}|{REST}"
GPT4O = rf"{WORD}{UPPER}*{LOWER}+{CONTRACTIONS}?|{WORD}{UPPER}+{LOWER}*{CONTRACTIONS}?|\p{{N}}{{1,3}}|{REST}"
YOUTU = rf"{WORD}{UPPER}*{LOWER}+{CONTRACTIONS}?|{WORD}{UPPER}+{LOWER}*{CONTRACTIONS}?|\p{{N}}|{REST}"
KIMI_UPPER, KIMI_LOWER = (rf"[{letters[1:-1]}&&[^\p{{Han}}]]" for letters in (UPPER, LOWER))
KIMI = (
    rf"\p{{Han}}+|{WORD}{KIMI_UPPER}*{KIMI_LOWER}+{CONTRACTIONS}?|{WORD}{KIMI_UPPER}+{KIMI_LOWER}*{CONTRACTIONS}?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# Numbers are cut in threes from their end. A lookahead from every digit would read a long number over and over: these
# look once from its beginning, and go on in threes from there.
DIGITS_LEFT = r"(?=(?:\d{3})*+(?!\d))"
# Published as \d{1,3}(?=(?:\d{3})*\b), which leaves numbers that a letter follows to the next pattern; in llama.cpp it
# does not, and spaces before a number are cut as before a word.
TINY_AYA_NUMBERS = (
    r"(?<!\d)\d++(?!\w)",
    r"\A\d{1,2}(?=(?:\d{3})++\z)",
    r"(?:\A(?=\d++\z)|\G(?!\A))\d{3}",
)
SUPERBPE_REST = rf"(?:[^\d]+(?:\d{{1,2}}{DIGITS_LEFT})?)*"
# Published as (?=(\d{3})+(?!\d)), a place and no piece: other numerals stay with the piece that they follow.
SUPERBPE_THREES = rf"\A\d{{1,2}}{DIGITS_LEFT}{SUPERBPE_REST}|\A(?=[^\d]){SUPERBPE_REST}|\d{{3}}{SUPERBPE_REST}"
# llama.cpp's own code: the first group of a number stays with what is before it, for the next patterns to cut.
AFMOE_NUMBERS = r"(?<!\P{N})\P{N}*+(?:(?<!\p{N})\p{N}{1,2}(?=(?:\p{N}{3})*+(?!\p{N}))|\p{N}{3})"
ASIAN = (
    "[一-\u9fff\u3400-\u4dbf\u8c48-\ufaff\u3040-\u30ff\uff65-\uff9f\u2f00-\u2fdf\u0e40-\u0eff\u1780-\u17ff\u1000-\u109f"
    "\uaa60-\uaa7f\ua9e0-\ua9ff\uac00-\ud7af\u1100-\u11ff]+"
)
EXAONE_MOE = (  # several words with one space between are one piece
    CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}\p{M}*+(?: ?\p{L}\p{M}*+)*+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]"
    r"|\s+(?!\S)|\s+"
)
BLOOM = r" ?[^(\s|.,!?…。，、।۔،)]+"
CJK = "[一-龥\u3040-\u309f\u30a0-\u30ff]+"
DEEPSEEK3 = (
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The letters with two cases, as DeepSeek's first tokenizer spells them out.
CASED = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-ώ"
    "ᾀ-ᾴᾶ-ᾼιῂ-ῄῆ-ῌῐ-ΐῖ-Ίῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤΩℨK-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏"
    "𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)
EAST_ASIAN = "[一-龥\u0800-一가-\ud7ff]+"

_gpt2 = PreTokenizer((GPT2,))
_llama3 = PreTokenizer((LLAMA3,), whole_words=True, add_bos=True)
_qwen2 = PreTokenizer((QWEN2,))
_digits = PreTokenizer((r"\p{N}", GPT2))

TEXT_PRES = ("gemma4", "granite-embed-multi-311m", "sarvam-moe")
"""The names in ``tokenizer.ggml.pre`` of files of the model ``gpt2`` whose BPE is over characters; see `text_bpe`."""

PRE_TOKENIZERS: dict[str, PreTokenizer] = {
    "default": PreTokenizer((r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]")),
    **dict.fromkeys(
        ("gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v2-es", "jina-v2-de", "a.x-4.0", "mellum",
         "modern-bert", "exaone4", "mpt", "olmo", "jais", "trillion", "granite-docling", "jina-v1-en", "jina-v2-code",
         "roberta-bpe"),
        _gpt2,
    ),
    **dict.fromkeys(
        ("llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"),
        _llama3,
    ),
    **dict.fromkeys(("glm4", "glm5"), PreTokenizer((LLAMA3,), whole_words=True)),
    **dict.fromkeys(("dbrx", "smaug-bpe", "chatglm-bpe"), PreTokenizer((LLAMA3,))),
    "tekken": PreTokenizer((TEKKEN,), whole_words=True, add_bos=True),
    **dict.fromkeys(("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2"), PreTokenizer((GPT4O,))),
    **dict.fromkeys(
        ("deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"),
        PreTokenizer((r"\p{N}{1,3}", CJK, DEEPSEEK3)),
    ),
    **dict.fromkeys(
        ("qwen2", "deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2",
         "bailingmoe", "bailingmoe2", "llada-moe"),
        _qwen2,
    ),
    **dict.fromkeys(
        ("starcoder", "refact", "command-r", "smollm", "codeshell", "exaone", "minerva-7b", "mellum2"), _digits
    ),
    "falcon": PreTokenizer((r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]")),
    "deepseek-llm": PreTokenizer(
        (
            r"[\r\n]",
            rf"\s?[{CASED}]+",
            r"\s?[!-/:-~！-／：-～‘-‟\u3000-。]+",
            r"(?<!\s)\s+\z",  # published as \s+$, which tries again from every space of a long gap
            EAST_ASIAN,
            r"\p{N}+",
        )
    ),
    "qwen35": PreTokenizer((QWEN35,)),
    "ufakzeka": PreTokenizer((WORDS,)),
    "laguna": PreTokenizer((r"[^\n]+|\n+", QWEN2)),
    "minicpm5": PreTokenizer((r"\p{N}{1,3}", MINICPM5), whole_words=True),
    "seed-coder": PreTokenizer((SEED_CODER,)),
    "jais-2": PreTokenizer((JAIS2,)),
    "kimi-k2": PreTokenizer((KIMI,)),
    "granite-embed-multi-97m": PreTokenizer((GPT4O,), whole_words=True),
    "youtu": PreTokenizer(
        ("[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|" + CJK, YOUTU), whole_words=True
    ),
    "spark2_5": PreTokenizer(
        (
            r"\p{N}{1,3}",
            CJK,
            r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
            r"| ?[\p{P}\p{S}]+|[\r\n]|\s+(?!\S)|\s+",
            r"\p{N}",
        )
    ),
    **dict.fromkeys(("bloom", "poro-chat", "gpt3-finnish"), PreTokenizer((BLOOM,))),
    "viking": PreTokenizer((BLOOM, r"\p{N}")),
    **dict.fromkeys(("tiny_aya", "cohere2moe"), PreTokenizer((*TINY_AYA_NUMBERS, GPT4O))),
    "superbpe": PreTokenizer((r"\p{N}+", SUPERBPE_THREES), boundary=re.compile(r"[\n -/:-~](?=[0-9])")),
    "afmoe": PreTokenizer((AFMOE_NUMBERS, ASIAN, DEEPSEEK3)),
    "exaone-moe": PreTokenizer((EXAONE_MOE,), boundary=re.compile(r"\S\n(?=[A-Za-z])")),
    "chameleon": PreTokenizer(
        (
            "<sentinel:[0-9]+>",
            "IMGIMG[A-I]{1,4}Z",
            r"[\t\n]|    |  ",
            r"\p{N}",
            r"[\p{P}!-/:-@\[-`{-~]",
            GPT2,
        ),
        add_bos=True,
    ),
    "deepseek-coder": PreTokenizer((r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", EAST_ASIAN, r"\p{N}")),
}  # fmt: skip
