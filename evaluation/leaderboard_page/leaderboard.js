// Sorting by a click on a head. Without this the tables stand in order of rank.
(() => {
  for (const table of document.querySelectorAll("table.board")) {
    const body = table.tBodies[0];
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      if (!("sort" in head.dataset)) return;
      const button = document.createElement("button");
      button.type = "button";
      button.title = "Sort by this column";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const falling = head.getAttribute("aria-sort") ? head.getAttribute("aria-sort") === "ascending" : head.dataset.sort === "down";
        const value = (row) => row.cells[column].dataset.value ?? "";
        const known = [...body.rows].filter((row) => value(row) !== "");
        const unknown = [...body.rows].filter((row) => value(row) === "");
        const order = (a, b) => (isNaN(value(a)) || isNaN(value(b)) ? value(a).localeCompare(value(b)) : value(a) - value(b));
        known.sort((a, b) => (falling ? -order(a, b) : order(a, b)));
        body.append(...known, ...unknown);
        for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", falling ? "descending" : "ascending");
      });
    });
  }
})();
