/* The ledger's filters: rows are hidden and moved, never made. Works from a file, asks nothing of a network. */
document.addEventListener("DOMContentLoaded", () => {
  "use strict";
  const form = document.querySelector(".tk-filters");
  if (!form) return;
  const body = document.querySelector(".tk-claims tbody");
  const rows = [...body.rows];
  const words = new Map(rows.map(row => [row, row.textContent.toLowerCase()]));
  const sentences = new Map(rows.map(row => [row, row.querySelector("summary").textContent.toLowerCase()]));
  const kinds = ["chapter", "verdict", "origin", "arena"];
  const ranks = Object.fromEntries(kinds.map(kind => [kind, [...form.elements[kind].options].map(o => o.value)]));

  const has = (texts, row) => form.elements.words.value.toLowerCase().split(/\s+/).every(word => texts.get(row).includes(word));

  function shown(row) {
    return has(words, row)
      && kinds.every(kind => !form.elements[kind].value || form.elements[kind].value === row.dataset[kind]);
  }

  function order(a, b) {
    const by = form.elements.sort.value;
    const rank = row => by === "place" ? 0 : ranks[by].indexOf(row.dataset[by]);
    const said = row => has(sentences, row) ? 0 : 1;  // what is sought stands in the sentence, and not only below it
    return said(a) - said(b) || rank(a) - rank(b) || a.dataset.place - b.dataset.place;
  }

  function update() {
    let count = 0;
    for (const row of rows.sort(order)) {
      row.hidden = !shown(row);
      count += !row.hidden;
      body.append(row);
    }
    form.querySelector("output").textContent = `${count} of ${rows.length} claims`;
  }

  function openTarget() {
    const row = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!row || row.parentElement !== body) return;
    if (row.hidden) form.reset();
    update();
    row.querySelector("details").open = true;
    row.scrollIntoView();
  }

  form.hidden = false;
  form.addEventListener("input", update);
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(update));
  addEventListener("hashchange", openTarget);
  update();
  openTarget();
});
