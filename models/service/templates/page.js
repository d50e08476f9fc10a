"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const [file, drop, record, player, chart] = ["file", "drop", "record", "player", "chart"].map(byId);
  const RECORD_S = 10, RATE = 22050, N_FFT = 2048, ROWS = 140, LOWEST = 40, RANGE_DB = 80;
  const MAX_GENRES = 8, MAX_CELLS = 240, MAX_DECODED_S = 1800;
  // Colours from quiet to loud, as red, green and blue.
  const RAMP = [[10, 7, 34], [60, 15, 112], [140, 41, 129], [221, 73, 104], [254, 159, 109], [252, 253, 191]];
  let shown = null;  // the song on the page: { name, number, url, answer, picture }
  let number = 0;

  const percent = (p) => `${(100 * p).toFixed(p < 0.0995 ? 1 : 0)} %`;
  const clock = (s) => `${Math.floor(s / 60)}:${String(Math.floor(s % 60)).padStart(2, "0")}`;
  const say = (text) => { byId("status").textContent = text; };
  const complain = (text) => { byId("error").textContent = text; if (text) say(""); };

  // -- spectrogram ---------------------------------------------------------------------------------------------------

  // In-place Fourier transform of N_FFT complex numbers, radix 2.
  function transform(re, im) {
    for (let i = 1, j = 0; i < N_FFT; i++) {
      let bit = N_FFT >> 1;
      for (; j & bit; bit >>= 1) j ^= bit;
      j ^= bit;
      if (i < j) [re[i], re[j]] = [re[j], re[i]];
    }
    for (let size = 2; size <= N_FFT; size <<= 1) {
      const half = size >> 1, step = N_FFT / size;
      for (let start = 0; start < N_FFT; start += size) {
        for (let k = 0; k < half; k++) {
          const c = COS[k * step], s = SIN[k * step], a = start + k, b = a + half;
          const x = re[b] * c + im[b] * s, y = im[b] * c - re[b] * s;
          re[b] = re[a] - x; im[b] = im[a] - y; re[a] += x; im[a] += y;
        }
      }
    }
  }
  const COS = Float64Array.from({ length: N_FFT / 2 }, (_, k) => Math.cos(2 * Math.PI * k / N_FFT));
  const SIN = Float64Array.from({ length: N_FFT / 2 }, (_, k) => Math.sin(2 * Math.PI * k / N_FFT));
  const HANN = Float64Array.from({ length: N_FFT }, (_, k) => 0.5 - 0.5 * Math.cos(2 * Math.PI * k / N_FFT));
  // First and last bin of each row; rows are spaced evenly in the logarithm of the frequency, the lowest one first.
  const edge = (row) => LOWEST * (RATE / 2 / LOWEST) ** (row / ROWS) * N_FFT / RATE;
  const BINS = Array.from({ length: ROWS }, (_, row) => {
    const first = Math.round(edge(row));
    return [first, Math.max(first, Math.min(N_FFT / 2, Math.round(edge(row + 1)) - 1))];
  });
  const height = (hz) => Math.log(hz / LOWEST) / Math.log(RATE / 2 / LOWEST);

  function colour(level) {
    const at = Math.min(Math.max(level, 0), 1) * (RAMP.length - 1), k = Math.min(Math.floor(at), RAMP.length - 2);
    return RAMP[k].map((value, i) => value + (at - k) * (RAMP[k + 1][i] - value));
  }

  // A picture of mono samples as a data URI: time to the right, frequency upwards.
  function draw(samples) {
    const columns = Math.max(1, Math.min(900, Math.floor(samples.length / (N_FFT / 4))));
    const levels = new Float32Array(columns * ROWS);
    const re = new Float64Array(N_FFT), im = new Float64Array(N_FFT);
    let top = -Infinity;
    for (let column = 0; column < columns; column++) {
      const start = Math.round((column + 0.5) / columns * samples.length - N_FFT / 2);
      for (let i = 0; i < N_FFT; i++) { re[i] = (samples[start + i] || 0) * HANN[i]; im[i] = 0; }
      transform(re, im);
      for (let row = 0; row < ROWS; row++) {
        let power = 1e-12;
        for (let bin = BINS[row][0]; bin <= BINS[row][1]; bin++) power = Math.max(power, re[bin] ** 2 + im[bin] ** 2);
        const db = 10 * Math.log10(power);
        levels[row * columns + column] = db;
        top = Math.max(top, db);
      }
    }
    const canvas = document.createElement("canvas");
    canvas.width = columns; canvas.height = ROWS;
    const context = canvas.getContext("2d"), pixels = context.createImageData(columns, ROWS);
    for (let row = 0; row < ROWS; row++) {
      for (let column = 0; column < columns; column++) {
        const rgb = colour(1 + (levels[(ROWS - 1 - row) * columns + column] - top) / RANGE_DB);
        pixels.data.set([...rgb, 255], 4 * (row * columns + column));
      }
    }
    context.putImageData(pixels, 0, 0);
    return canvas.toDataURL();
  }

  // The spectrogram of a file and its length; null if the browser cannot decode it.
  async function spectrogram(blob) {
    try {
      const audio = await new OfflineAudioContext(1, 1, RATE).decodeAudioData(await blob.arrayBuffer());
      if (audio.duration > MAX_DECODED_S) return null;
      const mono = new Float32Array(audio.length);
      for (let c = 0; c < audio.numberOfChannels; c++) {
        const channel = audio.getChannelData(c);
        for (let i = 0; i < mono.length; i++) mono[i] += channel[i] / audio.numberOfChannels;
      }
      return { uri: draw(mono), seconds: audio.duration };
    } catch {
      return null;
    }
  }

  // -- chart ---------------------------------------------------------------------------------------------------------

  function add(parent, name, attributes = {}, content = null) {
    const element = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (content !== null) element.textContent = content;
    parent.append(element);
    return element;
  }

  // A name cut to what fits into a width in pixels.
  function fit(name, width) {
    const context = document.createElement("canvas").getContext("2d");
    context.font = "12px system-ui, sans-serif";
    if (context.measureText(name).width <= width) return name;
    let n = name.length;
    while (n > 1 && context.measureText(`${name.slice(0, n)}…`).width > width) n--;
    return `${name.slice(0, n)}…`;
  }

  function ranked(shares) {
    return Object.entries(shares).sort((a, b) => b[1] - a[1]);
  }

  // Means of the timeline over at most MAX_CELLS spans: [first second, last second, probabilities by genre].
  function spans(timeline, genres) {
    const per = Math.ceil(timeline.length / MAX_CELLS);
    const found = [];
    for (let first = 0; first < timeline.length; first += per) {
      const rows = timeline.slice(first, first + per);
      found.push([first, first + rows.length,
        genres.map((g) => rows.reduce((sum, row) => sum + row.probabilities[g], 0) / rows.length)]);
    }
    return found;
  }

  function tickStep(seconds, width) {
    const wanted = seconds / Math.max(2, Math.floor(width / 70));
    return [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 1800, 3600].find((step) => step >= wanted) || 7200;
  }

  function render() {
    chart.replaceChildren();
    if (!shown || !shown.answer) return;
    const { answer, picture } = shown, width = Math.max(260, chart.clientWidth);
    const left = width < 500 ? 76 : 110, right = width - 8, seconds = Math.max(answer.duration_s, 0.001);
    const x = (s) => left + Math.min(s / seconds, 1) * (right - left);
    const genres = ranked(answer.probabilities).slice(0, MAX_GENRES).map(([genre]) => genre);
    const tall = picture ? 150 : 0, row = 22, total = 8 + tall + genres.length * row + 24;
    const best = ranked(answer.probabilities).slice(0, 3).map(([genre, p]) => `${genre} ${percent(p)}`).join(", ");
    const svg = add(chart, "svg", { viewBox: `0 0 ${width} ${total}`, role: "img", "aria-label":
      `${picture ? "Spectrogram, and below it the" : "The"} probabilities of genres over ${clock(seconds)}: ${best}` });
    let y = 6;
    if (picture) {
      add(svg, "image", { href: picture.uri, x: left, y, width: right - left, height: tall, preserveAspectRatio: "none" });
      for (const [hz, label] of [[100, "100 Hz"], [1000, "1 kHz"], [5000, "5 kHz"]]) {
        const at = y + tall * (1 - height(hz));
        add(svg, "line", { x1: left - 4, x2: left, y1: at, y2: at, class: "axis" });
        add(svg, "text", { x: left - 8, y: at + 4, "text-anchor": "end", class: "tick" }, label);
      }
      y += tall + 6;
    }
    const cells = spans(answer.timeline, genres);
    genres.forEach((genre, k) => {
      add(svg, "text", { x: left - 8, y: y + 14, "text-anchor": "end" }, fit(genre, left - 12));
      add(svg, "rect", { x: left, y, width: right - left, height: row - 4, class: "track" });
      for (const [first, last, shares] of cells) {
        const cell = { x: x(first), y, width: Math.max(x(last) - x(first), 0.5), height: row - 4, class: "p" };
        add(add(svg, "rect", { ...cell, "fill-opacity": shares[k].toFixed(3) }), "title", {},
          `${genre}, ${clock(first)}: ${percent(shares[k])}`);
      }
      y += row;
    });
    const step = tickStep(seconds, right - left);
    for (let tick = 0; tick <= seconds; tick += step) {
      const anchor = tick === 0 ? "start" : x(tick) > right - 16 ? "end" : "middle";
      add(svg, "text", { x: x(tick), y: y + 14, "text-anchor": anchor, class: "tick" }, clock(tick));
    }
    const line = add(svg, "g", { class: "playhead" });
    for (const class_ of ["halo", "core"]) add(line, "line", { x1: left, x2: left, y1: 6, y2: y, class: class_ });
    shown.move = () => line.setAttribute("transform", `translate(${x(player.currentTime) - left} 0)`);
    shown.move();
    svg.addEventListener("click", (event) => {
      const at = (event.clientX - svg.getBoundingClientRect().left) * width / svg.getBoundingClientRect().width;
      if (at >= left) player.currentTime = Math.min((at - left) / (right - left), 1) * seconds;
    });
  }

  function follow() {
    if (shown && shown.move) shown.move();
    if (!player.paused) requestAnimationFrame(follow);
  }
  for (const name of ["play", "seeked", "timeupdate"]) player.addEventListener(name, follow);

  // -- results -------------------------------------------------------------------------------------------------------

  function cell(row, text, tag = "td", class_ = "") {
    const element = document.createElement(tag);
    element.textContent = text;
    if (class_) element.className = class_;
    if (tag === "th") element.scope = "row";
    row.append(element);
    return element;
  }

  function show() {
    const { answer } = shown, shares = ranked(answer.probabilities);
    byId("result").hidden = false;
    byId("name").textContent = shown.name;
    const best = `${shares[0][0]} ${percent(shares[0][1])}`;
    const verdict = answer.genre === null ? `none of these (most probable: ${best})` : best;
    byId("verdict").textContent = verdict;
    player.setAttribute("aria-label", `Play ${shown.name}`);
    byId("genres").replaceChildren(...shares.map(([genre, p]) => {
      const row = document.createElement("tr"), meter = document.createElement("meter");
      cell(row, genre, "th");
      cell(row, percent(p), "td", "n");
      meter.value = p;
      meter.setAttribute("aria-label", `${genre}: ${percent(p)}`);
      cell(row, "", "td", "wide").append(meter);
      return row;
    }));
    byId("seconds").replaceChildren(...answer.timeline.map(({ start_s, probabilities }) => {
      const row = document.createElement("tr");
      cell(row, clock(start_s), "th");
      cell(row, ranked(probabilities).slice(0, 3).map(([genre, p]) => `${genre} ${percent(p)}`).join(", "));
      return row;
    }));
    byId("strange").hidden = !answer.strange;
    say(`Done: ${verdict}.${answer.detail ? ` Note: ${answer.detail}.` : ""}`);
    render();
  }

  async function ask(blob, name) {
    const form = new FormData();
    form.append("file", blob, name);
    const token = byId("token");
    const headers = token && token.value ? { Authorization: `Bearer ${token.value.trim()}` } : {};
    const response = await fetch("predict?timeline=true", { method: "POST", body: form, headers });
    const answer = await response.json();
    if (!response.ok) throw new Error(`${answer.error}; ${answer.remedy}`);
    return answer;
  }

  async function analyse(blob, name) {
    const mine = ++number;
    complain("");
    const limit = Number(document.body.dataset.megabytes);
    if (blob.size > limit * 1e6) { complain(`${name} has ${(blob.size / 1e6).toFixed(1)} MB; at most ${limit} MB are taken`); return; }
    say(`Listening to ${name} …`);
    player.pause();
    try {
      const [answer, picture] = await Promise.all([ask(blob, name), spectrogram(blob)]);
      if (mine !== number) return;  // another song was chosen meanwhile
      if (shown) URL.revokeObjectURL(shown.url);
      shown = { name, answer, picture, url: URL.createObjectURL(blob) };
      player.src = shown.url;
      show();
    } catch (error) {
      if (mine !== number) return;
      complain(error instanceof TypeError ? "The server does not answer; is it still running?" : error.message);
    }
  }

  file.addEventListener("change", () => {
    if (file.files.length) analyse(file.files[0], file.files[0].name);
    file.value = "";
  });
  for (const name of ["dragenter", "dragover"]) {
    document.addEventListener(name, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) drop.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    const dropped = event.dataTransfer.files;
    if (dropped.length) analyse(dropped[0], dropped[0].name);
    else complain("That is no file; drop an audio file");
  });
  if (byId("who")) byId("who").addEventListener("submit", (event) => event.preventDefault());
  let resizing = 0;
  addEventListener("resize", () => { cancelAnimationFrame(resizing); resizing = requestAnimationFrame(render); });

  // -- recording -----------------------------------------------------------------------------------------------------

  let recorder = null;
  const label = record.textContent;
  if (!navigator.mediaDevices || !window.MediaRecorder) {
    record.disabled = true;
    record.textContent = "Recording needs HTTPS or localhost";
  }
  record.addEventListener("click", async () => {
    if (recorder) { recorder.stop(); return; }
    let stream;
    complain("");
    try {
      stream = await navigator.mediaDevices.getUserMedia({ audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false } });
    } catch (error) {
      complain(error.name === "NotAllowedError" ? "The microphone is not allowed for this page" : "There is no microphone");
      return;
    }
    const parts = [], began = performance.now();
    recorder = new MediaRecorder(stream);
    recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
    const tick = setInterval(() => {
      const left = Math.ceil(RECORD_S - (performance.now() - began) / 1000);
      if (left <= 0) recorder.stop(); else record.textContent = `Stop (${left} s)`;
    }, 200);
    recorder.addEventListener("stop", () => {
      clearInterval(tick);
      for (const track of stream.getTracks()) track.stop();
      const kind = recorder.mimeType.split(";")[0];
      recorder = null;
      record.textContent = label;
      record.setAttribute("aria-pressed", "false");
      analyse(new Blob(parts, { type: kind }), "Recording");
    }, { once: true });
    recorder.start();
    record.textContent = `Stop (${RECORD_S} s)`;
    record.setAttribute("aria-pressed", "true");
    say("Recording …");
  });
})();
