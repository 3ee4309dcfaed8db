// @ts-check
// The rows of the table: how many stand in the page at most.

const ROWS_MAX = 2000;

export function enableRows() {
  document.body.addEventListener("htmx:load", (event) => {
    const { elt } = /** @type {CustomEvent} */ (event).detail;
    if (elt instanceof HTMLTableRowElement) keepBounded();
  });
}

/** Takes rows away at the top when there are too many; what is on the screen stays where it is. */
function keepBounded() {
  const table = document.getElementById("events");
  const rows = table ? [...table.querySelectorAll("tbody tr[id]")] : [];
  if (!table || rows.length <= ROWS_MAX) return;
  const before = document.documentElement.scrollHeight;
  const top = scrollY;
  rows.slice(0, rows.length - ROWS_MAX).forEach((row) => row.remove());
  if (!document.getElementById("rows-gone")) {
    const back = document.createElement("p");
    back.id = "rows-gone";
    back.className = "not-newest";
    const link = back.appendChild(document.createElement("a"));
    link.href = document.getElementById("drawer")?.dataset.back ?? "/";
    link.textContent = "The first rows are left out; back to the beginning";
    table.parentElement?.before(back);
  }
  const gone = before - document.documentElement.scrollHeight;
  if (scrollY === top) scrollTo({ top: top - gone, behavior: "instant" });
}
