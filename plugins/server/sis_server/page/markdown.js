// Markdown as DOM nodes. What a model says never becomes HTML: every text goes in by textContent or createTextNode, and
// links keep only the schemes named here.

const SCHEMES = /^(https?:\/\/|mailto:)/i;
const INLINE = /(`+)([\s\S]+?)\1(?!`)|\*\*(\S|\S[\s\S]*?\S)\*\*|(?<![\w*])[*_](?=\S)([^*_\n]*?\S)[*_](?!\w)|\[([^\]\n]*)\]\(([^()\s]*)\)/;
const BLOCK = /^(#{1,6} |\s*[-*+] |\s*\d{1,9}[.)] |> ?|\s*```|\|)/;
const DEPTH = 8; // of emphasis within emphasis

const make = (name, ...children) => {
  const node = document.createElement(name);
  node.append(...children);
  return node;
};

function inline(text, depth = 0) {
  const nodes = [];
  while (text) {
    const match = depth < DEPTH ? INLINE.exec(text) : null;
    if (!match) return [...nodes, document.createTextNode(text)];
    if (match.index) nodes.push(document.createTextNode(text.slice(0, match.index)));
    const [whole, , code, strong, emphasis, label, target] = match;
    if (code !== undefined) nodes.push(make("code", code));
    else if (strong !== undefined) nodes.push(make("strong", ...inline(strong, depth + 1)));
    else if (emphasis !== undefined) nodes.push(make("em", ...inline(emphasis, depth + 1)));
    else nodes.push(link(whole, label, target));
    text = text.slice(match.index + whole.length);
  }
  return nodes;
}

function link(whole, label, target) {
  if (!SCHEMES.test(target)) return document.createTextNode(whole);
  const node = make("a", label || target);
  node.href = target;
  node.rel = "noopener noreferrer nofollow";
  node.target = "_blank";
  return node;
}

function table(lines) {
  const cells = (line) => line.trim().replace(/^\||\|$/g, "").split("|").map((cell) => cell.trim());
  const [head, , ...rows] = lines.map(cells);
  return make("table",
    make("thead", make("tr", ...head.map((cell) => make("th", ...inline(cell))))),
    make("tbody", ...rows.map((row) => make("tr", ...row.map((cell) => make("td", ...inline(cell)))))));
}

export function markdown(text) {
  const lines = text.split("\n");
  const blocks = [];
  let at = 0;
  const take = (fits) => {
    const from = at;
    while (at < lines.length && fits(lines[at])) at += 1;
    return lines.slice(from, at);
  };
  while (at < lines.length) {
    const line = lines[at];
    let match;
    if (!line.trim()) {
      at += 1;
    } else if (/^\s*```/.test(line)) {
      at += 1;
      const code = take((l) => !/^\s*```\s*$/.test(l));
      at += 1;
      blocks.push(make("pre", make("code", code.join("\n"))));
    } else if ((match = /^(#{1,6}) (.*)/.exec(line))) {
      at += 1;
      blocks.push(make(`h${Math.min(match[1].length + 1, 4)}`, ...inline(match[2])));
    } else if (/^> ?/.test(line)) {
      const quoted = take((l) => /^> ?/.test(l)).map((l) => l.replace(/^> ?/, "")).join("\n");
      blocks.push(make("blockquote", ...inline(quoted)));
    } else if ((match = /^\s*([-*+]|\d{1,9}[.)]) /.exec(line))) {
      const ordered = /\d/.test(match[1]);
      const marker = ordered ? /^\s*\d{1,9}[.)] / : /^\s*[-*+] /;
      const list = make(ordered ? "ol" : "ul");
      if (ordered) list.start = parseInt(match[1], 10);
      for (const item of take((l) => marker.test(l) || /^\s{2,}\S/.test(l))) {
        if (marker.test(item)) list.append(make("li", ...inline(item.replace(marker, ""))));
        else list.lastChild.append(document.createElement("br"), ...inline(item.trim()));
      }
      blocks.push(list);
    } else if (line.startsWith("|") && /^\|[\s:|-]+\|?\s*$/.test(lines[at + 1] ?? "")) {
      blocks.push(table(take((l) => l.startsWith("|"))));
    } else {
      at += 1;
      const rest = take((l) => l.trim() && !BLOCK.test(l));
      blocks.push(make("p", ...inline([line, ...rest].join("\n"))));
    }
  }
  return blocks;
}
