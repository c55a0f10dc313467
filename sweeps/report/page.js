// Tables are sorted by the heading that is clicked, the other way at the second click. Without scripts they are as written.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  table.querySelectorAll("thead th").forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      const key = (row) => row.cells[column].dataset.value;
      const order = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === "" || y === "") return (x === "") - (y === ""); // what is missing comes last either way
        const difference = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
        return down ? -difference : difference;
      };
      body.append(...[...body.rows].sort(order));
      for (const other of heading.parentNode.cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    });
  });
}
// What is folded is printed too.
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((each) => (each.open = true)));
