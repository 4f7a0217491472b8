// Filters of the transcripts. Without this script every transcript is shown; axis, arms and theme are switched by the style sheet alone.
"use strict";
(() => {
  const PAGE = 10;
  const filters = document.getElementById("filters");
  if (!filters) return;
  const articles = [...document.querySelectorAll("article.transcript")];
  const words = articles.map((article) => article.textContent.toLowerCase());
  const of = (name) => document.getElementById("filter-" + name);
  const count = document.getElementById("count");
  const more = document.getElementById("more");
  let shown = PAGE;

  // Values carry "=" before them, so that an empty family is not "any".
  const chosen = (name, value) => of(name).value === "" || of(name).value === "=" + value;
  const matches = (article, i) =>
    ["arm", "seed", "family"].every((name) => chosen(name, article.dataset[name])) &&
    (of("outcome").value === "" || article.dataset.outcome.split("|").includes(of("outcome").value)) &&
    words[i].includes(of("text").value.toLowerCase());

  const draw = () => {
    let found = 0;
    articles.forEach((article, i) => { article.hidden = !(matches(article, i) && found++ < shown); });
    count.textContent = `${Math.min(found, shown)} of ${found} shown, ${articles.length} on the page`;
    more.hidden = found <= shown;
  };
  const again = () => { shown = PAGE; draw(); };

  filters.addEventListener("input", again);
  document.getElementById("clear").addEventListener("click", () => {
    for (const name of ["arm", "seed", "family", "outcome", "text"]) of(name).value = "";
    again();
  });
  more.addEventListener("click", () => {
    const first = articles.filter((article) => !article.hidden).length;
    shown += PAGE;
    draw();
    // The keyboard goes on where reading goes on.
    articles.filter((article) => !article.hidden)[first]?.focus();
  });
  addEventListener("beforeprint", () => { shown = articles.length; draw(); });
  filters.hidden = false;
  draw();
})();
