/* The playground: stored states in, words, a map and two pictures out. No library, no network.

   A model of the data has `cuts`, one for each state of the controls; the first model also has
   numbers of each neuron. Colours are in site.css, so that they follow the page's theme. */
(function () {
  "use strict";
  const models = window.gumlabPlayground;
  const NAMES = {
    random: "random",
    magnitude: "magnitude",
    taylor: "sensitivity",
    obs: "used × unique (OBS)",
    greedy_obs: "greedy OBS",
    recommended: "recommended (greedy OBS)",
    layer: "the same share of every layer",
    global: "one ranking of all neurons",
  };
  const COLUMNS = 64; // of the map
  const CELL = 6;
  const LABEL = 18; // height of a layer's label in the map
  const at = (id) => document.getElementById("pg-" + id);
  const selected = { layer: 0, neuron: 0 };
  let now; // the state that is shown

  /* Change a sentence; one that stays is not read aloud again. */
  function say(id, sentence) {
    if (at(id).textContent !== sentence) at(id).textContent = sentence;
  }

  // --- the state -----------------------------------------------------------------------------

  function cutsOf(method, scope, refit) {
    const model = models[at("model").value];
    const found = model.cuts.filter(
      (cut) => cut.method === method && cut.scope === scope && cut.refit === refit,
    );
    const whole = { method, scope, refit, keep: 100, loss: model.dense_loss, texts: model.dense };
    return [...found, whole].sort((one, other) => one.keep - other.keep);
  }

  function fill(select, values, name) {
    const before = select.value;
    select.replaceChildren(...values.map((value) => new Option(name(value), value)));
    if (values.map(String).includes(before)) select.value = before;
  }

  function unique(values) {
    return [...new Set(values)];
  }

  /* Offer what the model has, and keep as much of the state as there is. */
  function offer() {
    const model = models[at("model").value];
    fill(at("method"), unique(model.cuts.map((cut) => cut.method)), (name) => NAMES[name] || name);
    const cuts = model.cuts.filter((cut) => cut.method === at("method").value);
    fill(at("scope"), unique(cuts.map((cut) => cut.scope)), (name) => NAMES[name]);
    const start = (prompt) => (prompt.length > 44 ? prompt.slice(0, 43) + "…" : prompt);
    fill(at("prompt"), [...model.prompts.keys()], (index) => start(model.prompts[index]));
    document.querySelectorAll(".of-neurons").forEach((part) => (part.hidden = !model.widths));
  }

  function read() {
    const model = models[at("model").value];
    const refit = at("refit").checked;
    const cuts = cutsOf(at("method").value, at("scope").value, refit);
    const wanted = now ? now.cut.keep : 50;
    const slider = at("keep");
    slider.max = cuts.length - 1;
    let index = Number(slider.value);
    if (!read.dragged) {
      const far = cuts.map((cut) => Math.abs(cut.keep - wanted));
      index = far.indexOf(Math.min(...far)); // another score, scope or model: the nearest share
      slider.value = index;
    }
    const cut = cuts[index];
    at("share").value = cut.keep + " %";
    slider.setAttribute("aria-valuetext", cut.keep + " percent of the neurons stay");
    now = { model, cuts, cut, refit, prompt: Number(at("prompt").value) };
    now.kept = model.widths ? kept(model, cut) : null;
  }

  /* For each layer a list of true and false, from the bits of the cut's mask. */
  function kept(model, cut) {
    const twin = cutsOf(cut.method, cut.scope, false).find((other) => other.keep === cut.keep);
    const bytes = twin.mask ? Uint8Array.from(atob(twin.mask), (sign) => sign.charCodeAt(0)) : null;
    let place = 0;
    return model.widths.map((width) =>
      Array.from({ length: width }, () => {
        const bit = bytes ? (bytes[place >> 3] >> (7 - (place & 7))) & 1 : 1;
        place += 1;
        return bit === 1;
      }),
    );
  }

  // --- what it writes ------------------------------------------------------------------------

  /* Which words of two texts stand in both, in the same order: the longest common subsequence. */
  function common(one, other) {
    const table = Array.from({ length: one.length + 1 }, () => Array(other.length + 1).fill(0));
    for (let i = one.length - 1; i >= 0; i -= 1) {
      for (let j = other.length - 1; j >= 0; j -= 1) {
        const same = one[i] === other[j];
        const skip = Math.max(table[i + 1][j], table[i][j + 1]);
        table[i][j] = same ? table[i + 1][j + 1] + 1 : skip;
      }
    }
    const both = [new Set(), new Set()];
    for (let i = 0, j = 0; i < one.length && j < other.length; ) {
      if (one[i] === other[j]) {
        both[0].add(i++);
        both[1].add(j++);
      } else if (table[i + 1][j] >= table[i][j + 1]) i += 1;
      else j += 1;
    }
    return both;
  }

  function words(text) {
    return text.split(/\s+/).filter((word) => word);
  }

  function show(paragraph, list, both, tag) {
    const parts = list.flatMap((word, index) => {
      if (both.has(index)) return [word, " "];
      const mark = document.createElement(tag);
      mark.textContent = word;
      return [mark, " "];
    });
    paragraph.replaceChildren(...(parts.length ? parts : ["(nothing)"]));
  }

  function drawTexts() {
    const { model, cut, prompt } = now;
    const dense = words(model.dense[prompt]);
    const pruned = words(cut.texts[prompt]);
    const both = common(dense, pruned);
    at("given").textContent = model.prompts[prompt];
    show(at("dense"), dense, both[0], "del");
    show(at("pruned"), pruned, both[1], "ins");
    say(
      "written",
      `${cut.keep} % of the neurons stay. ${both[0].size} of the ${dense.length} words of the ` +
      `whole model are still there. Loss ${cut.loss.toFixed(2)}; of the whole model ` +
      `${model.dense_loss.toFixed(2)}.`,
    );
  }

  // --- pictures ------------------------------------------------------------------------------

  function element(name, attributes, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    return made;
  }

  const path = (name, d) => element("path", { class: name, d });
  const label = (x, y, text, anchor = "middle") =>
    element("text", { x, y, "text-anchor": anchor }, text);

  /* Where the cells of a layer begin in the map, and how high it is. */
  function rows(widths) {
    let y = 0;
    return widths.map((width) => {
      const top = y + LABEL;
      y = top + Math.ceil(width / COLUMNS) * CELL + 6;
      return { top, end: y };
    });
  }

  function drawMap() {
    const svg = at("map");
    const places = rows(now.model.widths);
    const parts = [];
    const lines = { stays: "", goes: "" };
    now.kept.forEach((layer, number) => {
      const stay = layer.filter((stays) => stays).length;
      const { top } = places[number];
      parts.push(label(0, top - 5, `layer ${number}: ${stay} of ${layer.length} stay`, "start"));
      layer.forEach((stays, neuron) => {
        const x = (neuron % COLUMNS) * CELL;
        const y = top + Math.floor(neuron / COLUMNS) * CELL;
        if (stays) lines.stays += `M${x} ${y}h5v5h-5z`;
        else lines.goes += `M${x + 1.5} ${y + 2.5}h2`;
      });
    });
    const { layer, neuron } = selected;
    const x = (neuron % COLUMNS) * CELL - 2;
    const y = places[layer].top + Math.floor(neuron / COLUMNS) * CELL - 2;
    parts.push(path("cell", lines.stays), path("gone", lines.goes));
    parts.push(element("rect", { class: "ring", x, y, width: 9, height: 9 }));
    svg.setAttribute("viewBox", `-3 0 ${COLUMNS * CELL + 6} ${places[places.length - 1].end}`);
    svg.replaceChildren(...parts);
  }

  function drawCurve() {
    const { model, cut, cuts, refit } = now;
    const other = cutsOf(cut.method, cut.scope, !refit);
    const losses = [...cuts, ...other].map((one) => one.loss);
    const low = Math.min(...losses);
    const high = Math.max(...losses, low + 0.1);
    const x = (keep) => 48 + 3.4 * keep;
    const y = (loss) => 210 - (180 * (loss - low)) / (high - low);
    const line = (list) => "M" + list.map((one) => `${x(one.keep)} ${y(one.loss)}`).join("L");
    const said = (withRefit) => (withRefit ? "with the refit" : "without the refit");
    const parts = [path("axis", `M${x(0)} 20V216H${x(100)}`)];
    for (const keep of [0, 25, 50, 75, 100]) parts.push(label(x(keep), 233, keep));
    for (const loss of [low, (low + high) / 2, high]) {
      parts.push(label(42, y(loss) + 4, loss.toFixed(1), "end"));
    }
    parts.push(label(x(50), 253, "neurons kept (%)"), label(4, 12, "loss", "start"));
    parts.push(path("whole", `M${x(0)} ${y(model.dense_loss)}H${x(100)}`));
    parts.push(path("line other", line(other)), path("line", line(cuts)));
    for (const one of cuts) {
      parts.push(element("circle", { class: "point", cx: x(one.keep), cy: y(one.loss), r: 3.5 }));
    }
    parts.push(
      element("circle", { class: "ring", cx: x(cut.keep), cy: y(cut.loss), r: 8 }),
      path("line", "M220 32h36"), label(262, 36, said(refit), "start"),
      path("line other", "M220 52h36"), label(262, 56, said(!refit), "start"),
      path("whole", "M220 72h36"), label(262, 76, "the whole model", "start"),
    );
    at("curve").replaceChildren(...parts);
    const stay = now.kept && now.kept.flat().filter((stays) => stays).length;
    const twin = other.find((one) => one.keep === cut.keep);
    const counted = now.kept ? `${stay} of ${now.kept.flat().length} neurons stay (squares in the map): ` : "";
    const widths = now.kept ? now.kept.map((one) => one.filter((stays) => stays).length) : [];
    say(
      "lost",
      `${counted}${widths.length ? `${widths.join(", ")} by layer. ` : ""}The loss is ` +
      `${cut.loss.toFixed(2)} ${said(refit)}` +
      (twin ? ` and ${twin.loss.toFixed(2)} ${said(!refit)}` : "") +
      `; ${model.dense_loss.toFixed(2)} with all neurons. Measured on ${model.judged_on}.`,
    );
  }

  /* The axes of the cloud: both logarithmic. */
  function axes() {
    const { sensitivity, uniqueness } = now.model;
    const scale = (numbers, from, to) => {
      const logs = numbers.flat().filter((number) => number > 0).map(Math.log10);
      const [low, high] = [Math.min(...logs), Math.max(...logs)];
      const place = (log) => from + ((to - from) * (Math.max(log, low) - low)) / (high - low);
      const ticks = [];
      for (let log = Math.ceil(low); log <= high; log += 1) ticks.push(log);
      return { of: (number) => place(Math.log10(number)), ticks, place };
    };
    return { x: scale(uniqueness, 62, 388), y: scale(sensitivity, 246, 14) };
  }

  function drawCloud() {
    const { sensitivity, uniqueness } = now.model;
    const { x, y } = axes();
    const only = at("shown").value;
    const dots = { stays: "", goes: "" };
    now.kept.forEach((layer, number) => {
      if (only !== "all" && Number(only) !== number) return;
      layer.forEach((stays, neuron) => {
        const left = x.of(uniqueness[number][neuron]).toFixed(1);
        const top = y.of(sensitivity[number][neuron]).toFixed(1);
        if (stays) dots.stays += `M${left} ${top}h0`;
        else dots.goes += `M${left - 2} ${top}h4`;
      });
    });
    const power = (log) => (log < -2 ? "1e" + log : String(10 ** log));
    const parts = [path("axis", "M56 10V252H392")];
    for (const log of x.ticks) parts.push(label(x.place(log), 268, power(log)));
    for (const log of y.ticks) parts.push(label(51, y.place(log) + 4, power(log), "end"));
    parts.push(label(224, 290, "uniqueness: the share that the others cannot rebuild"));
    parts.push(element("text", { x: -130, y: 12, transform: "rotate(-90)", "text-anchor": "middle" },
      "sensitivity"));
    parts.push(path("dash", dots.goes), path("dot", dots.stays));
    const { layer, neuron } = selected;
    const cx = x.of(uniqueness[layer][neuron]);
    const cy = y.of(sensitivity[layer][neuron]);
    parts.push(element("circle", { class: "ring", cx, cy, r: 7 }));
    at("cloud").replaceChildren(...parts);
    const rank = (list) => list.filter((number) => number > list[neuron]).length + 1;
    const ranked = (list) =>
      `${list[layer][neuron]} (rank ${rank(list[layer])} of ${list[layer].length} in its layer)`;
    say(
      "told",
      `Layer ${layer}, neuron ${neuron} ${now.kept[layer][neuron] ? "stays" : "goes"}. ` +
      `Sensitivity ${ranked(sensitivity)}, uniqueness ${ranked(uniqueness)}. ` +
      "Dots stay, dashes go.",
    );
  }

  // --- pointing ------------------------------------------------------------------------------

  function choose(layer, neuron) {
    const { widths } = now.model;
    selected.layer = Math.min(Math.max(0, layer || 0), widths.length - 1);
    selected.neuron = Math.min(Math.max(0, neuron || 0), widths[selected.layer] - 1);
    at("layer").value = selected.layer;
    at("neuron").value = selected.neuron;
    at("layer").max = widths.length - 1;
    at("neuron").max = widths[selected.layer] - 1;
    drawMap();
    drawCloud();
  }

  /* Where a pointer is, in the numbers of the picture. */
  function pointed(svg, event) {
    const spot = new DOMPoint(event.clientX, event.clientY);
    return spot.matrixTransform(svg.getScreenCTM().inverse());
  }

  function inMap(event) {
    const spot = pointed(at("map"), event);
    const places = rows(now.model.widths);
    const layer = places.findIndex((place) => spot.y >= place.top && spot.y < place.end);
    const column = Math.floor(spot.x / CELL);
    if (layer < 0 || column < 0 || column >= COLUMNS) return;
    const neuron = Math.floor((spot.y - places[layer].top) / CELL) * COLUMNS + column;
    if (neuron < now.model.widths[layer]) choose(layer, neuron);
  }

  function inCloud(event) {
    const spot = pointed(at("cloud"), event);
    const { sensitivity, uniqueness } = now.model;
    const { x, y } = axes();
    const only = at("shown").value;
    let nearest = null;
    sensitivity.forEach((numbers, layer) => {
      if (only !== "all" && Number(only) !== layer) return;
      numbers.forEach((number, neuron) => {
        const far = Math.hypot(x.of(uniqueness[layer][neuron]) - spot.x, y.of(number) - spot.y);
        if (far < (nearest ? nearest.far : 15)) nearest = { far, layer, neuron };
      });
    });
    if (nearest) choose(nearest.layer, nearest.neuron);
  }

  // --- together ------------------------------------------------------------------------------

  function draw() {
    read();
    drawTexts();
    drawCurve();
    if (now.kept) {
      drawMap();
      drawCloud();
    }
  }

  fill(at("model"), [...models.keys()], (index) => models[index].name);
  const layers = models[0].widths.keys();
  fill(at("shown"), ["all", ...layers], (value) => (value === "all" ? "all layers" : `layer ${value}`));
  offer();
  at("method").value = "greedy_obs";
  for (const id of ["model", "method", "scope", "refit", "prompt", "keep"]) {
    at(id).addEventListener("input", () => {
      offer();
      read.dragged = id === "keep";
      draw();
    });
  }
  at("shown").addEventListener("input", drawCloud);
  for (const id of ["layer", "neuron"]) {
    const chosen = () => choose(Number(at("layer").value), Number(at("neuron").value));
    at(id).addEventListener("change", chosen);
  }
  for (const [id, find] of [["map", inMap], ["cloud", inCloud]]) {
    at(id).addEventListener("pointermove", find);
    at(id).addEventListener("pointerdown", find);
  }
  document.querySelector(".playground form").addEventListener("submit", (event) => event.preventDefault());
  draw();
  choose(0, 0);
})();
