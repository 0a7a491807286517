/* Figures that grow at a tap, and formulas that shrink a little before they scroll. No network, nothing kept. */
(() => {
  "use strict";

  function enlarge(figure, label) {
    const dialog = document.createElement("dialog");
    dialog.className = "tk-large";
    dialog.setAttribute("aria-label", label);
    const stage = document.createElement("div");
    stage.className = "tk-stage";
    for (const shown of figure.querySelectorAll("svg.tk-wide, img.tk-wide, .tk-grid, img:not(.tk-narrow):not(.tk-wide):not(.tk-grid img)")) {
      if (getComputedStyle(shown).display !== "none" || shown.classList.contains("tk-wide")) {
        stage.append(shown.cloneNode(true));
      }
    }
    const close = document.createElement("button");
    close.type = "button";
    close.textContent = "Close";
    close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("click", event => event.target === dialog && dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    dialog.append(close, stage);
    document.body.append(dialog);
    dialog.showModal();
  }

  function prepareFigures() {
    for (const figure of document.querySelectorAll("article figure.tk-figure")) {
      const label = (figure.querySelector("figcaption strong")?.textContent || "Figure").replace(/\.$/, "");
      const button = document.createElement("button");
      button.type = "button";
      button.className = "tk-enlarge";
      button.textContent = "⤢";
      button.setAttribute("aria-label", `Enlarge ${label}`);
      button.addEventListener("click", () => enlarge(figure, label));
      figure.prepend(button);
      for (const shown of figure.querySelectorAll("svg, .tk-grid, img")) {
        if (!shown.querySelector(".tk-play") && !shown.closest(".tk-play")) shown.classList.add("tk-can-enlarge");
      }
      figure.addEventListener("click", event => {
        if (event.target.closest(".tk-play")) return; // it plays a sound
        if (event.target.closest("svg.tk-wide, svg.tk-narrow, .tk-grid, img")) enlarge(figure, label);
      });
    }
  }

  /* The folds of the list of pages show a sign alone: they say what they unfold. */
  function nameFolds() {
    for (const fold of document.querySelectorAll(".bd-sidebar-primary li.has-children > details > summary")) {
      fold.setAttribute("aria-label", `Pages under ${fold.closest("li").querySelector("a").textContent.trim()}`);
    }
  }

  /* An interval is not broken between its ends. */
  function keepIntervals() {
    for (const cell of document.querySelectorAll("article table.tk-table td")) {
      const walk = document.createTreeWalker(cell, NodeFilter.SHOW_TEXT);
      while (walk.nextNode()) {
        const text = walk.currentNode.data, kept = text.replace(/\[[^\[\]]{1,20}\]/g, found => found.replace(/ /g, "\u00a0"));
        if (kept !== text) walk.currentNode.data = kept;
      }
    }
  }

  /* The full stop behind a formula stays in its line. */
  function keepStops() {
    for (const formula of document.querySelectorAll("article span.math")) {
      const stop = formula.nextSibling?.nodeType === Node.TEXT_NODE && /^[.,;:!?)\]]+/.exec(formula.nextSibling.data);
      if (!stop) continue;
      const line = document.createElement("span");
      line.className = "tk-line";
      formula.nextSibling.data = formula.nextSibling.data.slice(stop[0].length);
      formula.replaceWith(line);
      line.append(formula, stop[0]);
    }
  }

  /* A formula too wide for its box gets smaller, to two thirds at most; what is still too wide scrolls. */
  function fitFormulas() {
    for (const box of document.querySelectorAll("article div.math")) {
      box.style.fontSize = "";
      const parts = [box, ...box.querySelectorAll("mjx-container")];
      const over = Math.max(...parts.map(part => part.scrollWidth / part.clientWidth));
      if (over > 1) box.style.fontSize = `${Math.max(66, Math.floor(97 / over))}%`;
    }
  }

  document.addEventListener("DOMContentLoaded", prepareFigures);
  document.addEventListener("DOMContentLoaded", nameFolds);
  document.addEventListener("DOMContentLoaded", keepIntervals);
  document.addEventListener("DOMContentLoaded", keepStops);
  addEventListener("load", () => {
    const drawn = window.MathJax?.startup?.promise;
    if (!drawn) return;
    drawn.then(fitFormulas);
    let waiting;
    addEventListener("resize", () => { clearTimeout(waiting); waiting = setTimeout(fitFormulas, 150); });
  });
})();
