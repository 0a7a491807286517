// Run in an open page: everything that the tests want to know about what it shows.
const article = document.querySelector("article");
const all = query => [...article.querySelectorAll(query)];
const short = element => `${element.tagName}.${element.getAttribute("class") ?? ""}: ${element.textContent.trim().slice(0, 60)}`;
const seen = element => element.getClientRects().length > 0 && getComputedStyle(element).visibility !== "hidden";
const parse = color => color.match(/[\d.]+/g).map(Number);

// Elements that reach beyond the window, unless something around them scrolls or cuts them off.
const wide = all("*").filter(element => {
  const box = element.getBoundingClientRect();
  if (box.width === 0 || box.height === 0 || box.right <= document.documentElement.clientWidth + 1) return false;
  for (let around = element.parentElement; around && around !== article; around = around.parentElement) {
    if (getComputedStyle(around).overflowX !== "visible") return false;
  }
  return true;
});

// Boxes whose content is wider than they are. Source code may be: its lines are not broken.
const clipped = all("*").filter(element => {
  const style = getComputedStyle(element);
  if (style.display === "inline" || style.overflowX === "visible" || !seen(element)) return false;
  if (element.closest(".highlight, .MathJax_Assistive, mjx-assistive-mml, .visually-hidden, thead, dt.sig, .toggle-hidden")) return false;
  return element.scrollWidth > element.clientWidth + 1;
});

// The size at which the text of figures is shown, in pixels of the screen.
const sizes = [];
for (const text of all("figure.tk-figure svg text")) {
  const svg = text.closest("svg");
  if (!seen(text) || !text.textContent.trim()) continue;
  const scale = svg.getBoundingClientRect().width / svg.viewBox.baseVal.width;
  sizes.push([parseFloat(getComputedStyle(text).fontSize) * scale, text.textContent]);
}
for (const words of all("figure.tk-figure :is(figcaption, output, .tk-grid div), table.tk-table :is(th, td)")) {
  if (seen(words) && words.textContent.trim()) sizes.push([parseFloat(getComputedStyle(words).fontSize), words.textContent]);
}

// Mentions of figures that are no links.
const dead = [];
const walker = document.createTreeWalker(article, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const parent = walker.currentNode.parentElement;
  if (/\bFigures?\s\d+\.\d+/.test(walker.currentNode.data)
      && !parent.closest("a, figcaption strong, pre, code, script, dialog, [aria-label]")) {
    dead.push(walker.currentNode.data.trim().slice(0, 80));
  }
}

const links = [...document.querySelectorAll("a[href]")].map(a => a.href).filter(href => href.startsWith("http"));
return {
  headings: all("h1").length,
  theme: document.documentElement.dataset.theme,
  scrolls: document.documentElement.scrollWidth > innerWidth,
  wide: wide.map(short),
  clipped: clipped.map(short),
  wordless: all("img").filter(image => !image.alt.trim()).map(image => image.src.slice(0, 80)),
  broken: all("img").filter(image => image.complete && !image.naturalWidth).map(image => image.alt),
  nameless: all("svg[role=img]").filter(svg => !svg.getAttribute("aria-label")?.trim()).length,
  undrawn: all(".math").filter(math => !math.querySelector("mjx-container")).length,
  formulas: document.querySelectorAll("article .math").length,
  apart: all("p .tk-line, li .tk-line").filter(line => getComputedStyle(line).display !== "inline").map(short),
  drawers: document.querySelectorAll("script[src*=mathjax]").length,
  launches: document.querySelectorAll("a[href*=colab]").length,
  wrong: document.querySelectorAll("mjx-merror").length,
  sizes: sizes.sort((a, b) => a[0] - b[0]).slice(0, 3),
  dead,
  links: [...new Set(links)],
  lost: all("a[href^='#']").map(a => decodeURIComponent(a.hash.slice(1))).filter(id => id && !document.getElementById(id)),
  figures: all("figure.tk-figure").length,
};
