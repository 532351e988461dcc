"use strict";
// Reads the survival embedded in the page and shows it at the values that the controls have.
(() => {
  const all = (name) => Array.from(document.querySelectorAll(name));
  const one = (name) => document.getElementById(name);
  const data = JSON.parse(one("survival").textContent);
  const DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
  const [LEFT, TOP, BOTTOM] = [52, 14, 268];
  const narrow = window.matchMedia("(max-width: 46rem)");
  let right = 704;
  const grid = data.leverages;
  const pickers = all("select[data-axis]");
  const [horizon, target, slider] = [one("pick-horizon"), one("pick-target"), one("leverage")];
  const fixed = data.scenarios[0].at;

  function unpacked(text) {
    const values = [];
    let last = 0;
    let at = 0;
    for (let k = 0; k < Math.max(1, grid.length); k += 1) {
      let [rest, weight, digit] = [0, 1, 32];
      while (at < text.length && digit >= 32) {
        digit = DIGITS.indexOf(text[at]);
        rest += (digit % 32) * weight;
        weight *= 32;
        at += 1;
      }
      last += rest % 2 ? -(rest - 1) / 2 : rest / 2;
      values.push(last);
    }
    return values;
  }

  // Hundredths of a percent as text: two decimals near either end, as they were rounded.
  function percent(code) {
    if (code < 0) return "–";
    if (code === 0 || code === 10000) return `${code / 100}\u00a0%`;
    const decimals = String(code % 100).padStart(2, "0");
    return `${Math.floor(code / 100)}.${code <= 5 || code >= 9995 ? decimals : decimals[0]}\u00a0%`;
  }
  const count = (number) => String(number).replace(/\B(?=(\d{3})+$)/g, ",");
  const times = (leverage) => `${leverage}×`;
  const words = (select) => select.selectedOptions[0].textContent;

  // The scenario picked. A value that does not go with those of the axes before it gives way to the first that does.
  function scenario() {
    let left = data.scenarios;
    const place = fixed.slice();
    for (const select of pickers) {
      const axis = Number(select.dataset.axis);
      const there = new Set(left.map((each) => each.at[axis]));
      for (const option of select.options) option.disabled = !there.has(Number(option.value));
      if (!there.has(Number(select.value))) select.value = String(left[0].at[axis]);
      place[axis] = Number(select.value);
      left = left.filter((each) => each.at[axis] === place[axis]);
    }
    return left[0];
  }

  const log = grid.length > 1 && grid[grid.length - 1] / grid[0] >= 4 ? Math.log : (leverage) => leverage;
  const [low, high] = [log(grid[0]), log(grid[grid.length - 1])];
  const x = (k) => (high > low ? LEFT + ((right - LEFT) * (log(grid[k]) - low)) / (high - low) : (LEFT + right) / 2);
  const y = (code) => BOTTOM - ((BOTTOM - TOP) * code) / 10000;
  const point = (k, code) => `${x(k).toFixed(1)} ${y(code).toFixed(1)}`;

  // Stretches of leverages at which anything was entered.
  function segments(survival) {
    const found = [];
    survival.forEach((code, k) => {
      if (code < 0) return;
      if (k > 0 && survival[k - 1] >= 0) found[found.length - 1].push(k);
      else found.push([k]);
    });
    return found;
  }

  function ticks() {
    let marks = "";
    for (const share of [0, 25, 50, 75, 100]) {
      const height = y(100 * share);
      marks += `<line class="grid" x1="${LEFT}" x2="${right}" y1="${height}" y2="${height}"/>`;
      marks += `<text x="${LEFT - 6}" y="${height + 4}" text-anchor="end">${share} %</text>`;
    }
    let last = -Infinity;
    const usual = [1, 2, 3, 5, 10, 20, 50, 100, 200, 500];
    grid.forEach((leverage, k) => {
      const end = k === 0 || k === grid.length - 1;
      if (!(end || usual.includes(leverage) || grid.length <= 8)) return;
      if (x(k) - last < 34 || (!end && right - x(k) < 40)) return;
      last = x(k);
      marks += `<text x="${last}" y="${BOTTOM + 18}" text-anchor="middle">${times(leverage)}</text>`;
    });
    one("ticks").innerHTML = marks;
  }

  function place(name, values) {
    for (const [key, value] of Object.entries(values)) one(name).setAttribute(key, value);
  }

  function draw(survival, lows, highs, few, k) {
    const parts = segments(survival);
    one("band").setAttribute("d", parts.map((part) => `M${part.map((n) => point(n, highs[n])).join("L")}L${
      part.slice().reverse().map((n) => point(n, lows[n])).join("L")}Z`).join(""));
    one("curve").setAttribute("d", parts.map((part) => `M${part.map((n) => point(n, survival[n])).join("L")}`).join(""));
    one("curve").classList.toggle("dashed", few.some(Boolean));
    const aim = y(Number.parseFloat(words(target)) * 100);
    place("aim", { y1: aim, y2: aim });
    const known = survival[k] >= 0;
    place("here", { x1: x(k), x2: x(k) });
    one("marker").style.display = known ? "" : "none";
    if (known) place("marker", { cx: x(k), cy: y(survival[k]) });
    const left = x(k) > (LEFT + right) / 2;
    place("label", { x: x(k) + (left ? -9 : 9), y: known && survival[k] > 5000 ? BOTTOM - 10 : TOP + 14,
      "text-anchor": left ? "end" : "start" });
    one("label").textContent = `${times(grid[k])}: ${percent(survival[k])}`;
  }

  function text(name, value) {
    one(name).textContent = value;
    return value;
  }

  function show() {
    const here = scenario();
    const [survival, lows, highs, entries, dead, rejected, few, best] =
      here.rows[Number(horizon.value)].map((each) => (typeof each === "string" ? unpacked(each) : each));
    const k = grid.length ? Number(slider.value) : 0;
    const known = survival[k] >= 0;
    const range = known ? `${percent(lows[k])} to ${percent(highs[k])}` : "–";
    text("rate", percent(survival[k]));
    text("interval", range);
    text("entries", count(entries[k]));
    text("liquidations", count(dead[k]));
    text("rejected", count(rejected[k]));
    one("few").hidden = !(known && few[k]);
    one("nothing").hidden = known;
    if (!grid.length) return;
    const at = times(grid[k]);
    text("leverage-value", at);
    slider.setAttribute("aria-valuetext", `${at}, ${known ? `${percent(survival[k])} survived` : "no entry"}`);
    const reach = best[Number(target.value)];
    text("best", reach === 0
      ? `No leverage of the grid reaches ${words(target)} with the lower end of its interval.`
      : `${times(grid[reach - 1])} is the largest leverage that, with every lower one, reaches ${words(target)} ` +
        `with the lower end of its interval${reach === grid.length ? "; nothing higher was tried." : "."}`);
    draw(survival, lows, highs, few, k);
    const who = [...pickers.map(words), `held ${words(horizon)}`].join(", ");
    one("chart").setAttribute("aria-label", `Line chart: survival against leverage, ${who}. At ${at}: ${
      known ? `${percent(survival[k])}, interval ${range}` : "no entry"}.`);
  }

  function update() {
    show();
    for (const control of all(".control")) {
      const select = control.querySelector("select");
      control.querySelector(".printed").textContent = select ? words(select) : one("leverage-value").textContent;
    }
  }

  // A narrow page gets a narrower chart, so that its words stay legible.
  function layout() {
    right = narrow.matches ? 404 : 704;
    if (grid.length) {
      place("chart", { viewBox: `0 0 ${right + 16} 300` });
      place("aim", { x1: LEFT, x2: right });
      ticks();
    }
    update();
  }

  narrow.addEventListener("change", layout);
  all(".explore select, .explore input").forEach((control) => control.addEventListener("input", update));
  one("explorer").hidden = false;
  layout();
})();
