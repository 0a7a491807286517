/* The ledger's filters: rows are hidden and moved, never made. Works from a file, asks nothing of a network. */
document.addEventListener("DOMContentLoaded", () => {
  "use strict";
  const form = document.querySelector(".tk-filters");
  if (!form) return;
  const body = document.querySelector(".tk-claims tbody");
  const rows = [...body.rows];
  const words = new Map(rows.map(row => [row, row.textContent.toLowerCase()]));
  const kinds = ["chapter", "verdict", "origin", "arena"];
  const ranks = Object.fromEntries(kinds.map(kind => [kind, [...form.elements[kind].options].map(o => o.value)]));

  function shown(row) {
    const sought = form.elements.words.value.toLowerCase().split(/\s+/);
    return sought.every(word => words.get(row).includes(word))
      && kinds.every(kind => !form.elements[kind].value || form.elements[kind].value === row.dataset[kind]);
  }

  function order(a, b) {
    const by = form.elements.sort.value;
    const rank = row => by === "place" ? 0 : ranks[by].indexOf(row.dataset[by]);
    return rank(a) - rank(b) || a.dataset.place - b.dataset.place;
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
