"use strict";
document.documentElement.classList.add("js");

// Tables sort by a click on a head. A cell's `data-v` is its value; without one, its text.
const valueOf = (row, column) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
function sort(table, column, head) {
  const descending = head.ariaSort ? head.ariaSort === "ascending" : head.classList.contains("n");
  const compare = (a, b) => {
    const [x, y] = [valueOf(a, column), valueOf(b, column)];
    if (x === "" || y === "") return (x === "") - (y === "");
    const order = isNaN(x) || isNaN(y) ? x.localeCompare(y) : x - y;
    return descending ? -order : order;
  };
  table.tBodies[0].append(...[...table.tBodies[0].rows].sort(compare));
  for (const other of head.parentNode.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", descending ? "descending" : "ascending");
}
for (const table of document.querySelectorAll("table.sortable")) {
  for (const [column, head] of [...table.tHead.rows[0].cells].entries()) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    button.addEventListener("click", () => sort(table, column, head));
    head.append(button);
  }
}

// One excerpt plays at a time; a line moves over its spectrogram.
for (const audio of document.querySelectorAll("audio")) {
  const card = audio.closest(".track-card");
  const line = card.querySelector(".playhead");
  const [left, right, seconds] = ["left", "right", "seconds"].map((name) => Number(card.dataset[name]));
  const move = () => {
    const x = left + ((Number(audio.dataset.start) + audio.currentTime) / seconds) * (right - left);
    line.setAttribute("transform", `translate(${x - left})`);
    if (!audio.paused) requestAnimationFrame(move);
  };
  audio.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
    card.classList.add("playing");
    move();
  });
  audio.addEventListener("pause", () => card.classList.remove("playing"));
}

// Pointing at a map shows the nearest track, in both maps; a click or tap plays its excerpt.
const about = document.querySelector(".about");
if (about) {
  const rows = [...document.querySelector("#all-tracks tbody").rows];
  const [words, thumb, more] = [".words", ".thumb", ".more"].map((name) => about.querySelector(name));
  const [play, link] = [more.querySelector("button"), more.querySelector("a")];
  let shown = null;
  const show = (number) => {
    if (number === shown) return;
    shown = number;
    for (const point of document.querySelectorAll(".map circle.on")) point.classList.remove("on");
    for (const point of document.querySelectorAll(`.map circle[data-row="${number}"]`)) point.classList.add("on");
    const [title, artist, truth, guess, share] = [...rows[number].cells].map((cell) => cell.textContent.trim());
    const name = document.createElement("b");
    const by = document.createElement("bdi");
    name.append(document.createElement("bdi"));
    name.firstChild.textContent = title;
    by.textContent = artist;
    words.replaceChildren(name, artist ? " by " : "", by, document.createElement("br"),
      truth === guess ? `${truth}, recognised with ${share}` : `${truth}, taken for ${guess}; ${share} for ${truth}`);
    const card = rows[number].dataset.card && document.getElementById(rows[number].dataset.card);
    const image = card && card.querySelector("image");
    thumb.replaceChildren(...(image ? [image.cloneNode()] : []));
    thumb.toggleAttribute("hidden", !image);
    more.toggleAttribute("hidden", !card);
    play.toggleAttribute("hidden", !(card && card.querySelector("audio")));
    if (card) link.href = `#${card.id}`;
  };
  const toggle = () => {
    const audio = document.getElementById(rows[shown].dataset.card)?.querySelector("audio");
    if (audio) audio.paused ? audio.play() : audio.pause();
  };
  play.addEventListener("click", toggle);
  for (const map of document.querySelectorAll(".map svg")) {
    const points = [...map.querySelectorAll("circle[data-row]")].map((point) => ({
      x: Number(point.getAttribute("cx")), y: Number(point.getAttribute("cy")), row: Number(point.dataset.row),
    }));
    const point = (event) => {
      const box = map.getBoundingClientRect();
      const scale = map.viewBox.baseVal.width / box.width;
      const [x, y] = [(event.clientX - box.left) * scale, (event.clientY - box.top) * scale];
      const distance = (place) => (place.x - x) ** 2 + (place.y - y) ** 2;
      const nearest = points.reduce((best, place) => (distance(place) < distance(best) ? place : best));
      if (distance(nearest) < 900) show(nearest.row);
    };
    map.addEventListener("pointermove", point);
    map.addEventListener("click", (event) => { point(event); if (shown !== null) toggle(); });
  }
}
