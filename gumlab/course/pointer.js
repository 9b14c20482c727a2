// The pointer over a picture of neurons. It knows where they are: naming and marking one asks
// Python nothing; only a selection is told to it, as [layer, neuron].

const ARROWS = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] };
const REACH = 14; // pixels from a point at which the mouse still means it

// All places of a group are in fractions of the picture's width and height.
function dots({ x, y, layers, neurons, texts }) {
  return neurons.map((neuron, i) => ({
    x: x[i], y: y[i], width: 0, height: 0, layer: layers[i], neuron, text: texts[i],
  }));
}

function cells({ box: [left, top, right, bottom], rows, columns, blocks }) {
  const width = (right - left) / columns;
  const height = (bottom - top) / rows;
  return blocks.flatMap(({ layer, row, neurons, texts }) =>
    neurons.map((neuron, i) => ({
      x: left + ((i % columns) + 0.5) * width,
      y: top + (row + Math.floor(i / columns) + 0.5) * height,
      width, height, layer, neuron, text: texts[i],
    })));
}

function nameOf({ layer, neuron, text }) {
  const place = layer === null ? `neuron ${neuron}` : `layer ${layer}, neuron ${neuron}`;
  return text ? `${place}: ${text}` : place;
}

function least(candidates, distance) {
  let best = null;
  let smallest = Infinity;
  for (const candidate of candidates) {
    const found = distance(candidate);
    if (found < smallest) [best, smallest] = [candidate, found];
  }
  return best;
}

function render({ model, el }) {
  let places = [];
  let here = null; // the place that is named now
  const marks = document.createElement("div");
  const label = document.createElement("div");
  label.className = "gumlab-label";
  label.setAttribute("role", "status");
  el.append(marks, label);
  el.tabIndex = 0;
  el.setAttribute("role", "application");
  el.setAttribute("aria-label", "Neurons of the picture. Arrow keys: another one. Enter: select it.");
  el.dataset.lmSuppressShortcuts = "true"; // else JupyterLab takes the arrow keys

  function picture() { // the picture's place within this layer, in pixels
    const image = el.parentElement?.querySelector("img");
    if (!image) return { left: 0, top: 0, width: 0, height: 0 };
    const { left, top, width, height } = image.getBoundingClientRect();
    const own = el.getBoundingClientRect();
    return { left: left - own.left, top: top - own.top, width, height };
  }

  function mark([layer, neuron], kind, { left, top, width, height }) {
    for (const place of places.filter((p) => p.layer === layer && p.neuron === neuron)) {
      const across = Math.max(place.width * width + 2, place.width ? 5 : REACH);
      const up = Math.max(place.height * height + 2, place.height ? 5 : REACH);
      const one = document.createElement("div");
      one.className = `gumlab-mark gumlab-${kind} gumlab-${place.width ? "cell" : "dot"}`;
      one.style.width = `${across}px`;
      one.style.height = `${up}px`;
      one.style.left = `${left + place.x * width - across / 2}px`;
      one.style.top = `${top + place.y * height - up / 2}px`;
      marks.append(one);
    }
  }

  function show() {
    const frame = picture();
    marks.replaceChildren();
    mark(model.get("twin"), "twin", frame);
    mark(model.get("selected"), "selected", frame);
    label.textContent = here ? nameOf(here) : "";
    label.hidden = !here;
    if (!here) return;
    mark([here.layer, here.neuron], "here", frame);
    const x = frame.left + here.x * frame.width;
    const y = frame.top + here.y * frame.height;
    const box = label.getBoundingClientRect();
    const room = frame.left + frame.width - box.width;
    label.style.left = `${Math.max(0, Math.min(x + 10, room))}px`;
    label.style.top = `${here.y < 0.5 ? y + 12 : y - 12 - box.height}px`;
  }

  function go(place) {
    if (place === here) return;
    here = place;
    show();
  }

  function under(event) {
    const { left, top, width, height } = picture();
    const own = el.getBoundingClientRect();
    const x = event.clientX - own.left - left;
    const y = event.clientY - own.top - top;
    const found = least(places, (p) => Math.hypot(p.x * width - x, p.y * height - y));
    const near = (fraction, distance, size) =>
      Math.abs(distance) <= Math.max(REACH, fraction * size / 2);
    const meant = found
      && near(found.width, found.x * width - x, width)
      && near(found.height, found.y * height - y, height);
    return meant ? found : null;
  }

  function beside(place, [right, down]) { // the nearest one in this direction
    const { width, height } = picture();
    return least(places, (p) => {
      const x = (p.x - place.x) * width;
      const y = (p.y - place.y) * height;
      const along = x * right + y * down;
      const across = Math.abs(x * down) + Math.abs(y * right);
      return along > 0.5 ? along + 3 * across : Infinity;
    }) ?? place;
  }

  function chosen() {
    const [layer, neuron] = model.get("selected");
    return places.find((p) => p.layer === layer && p.neuron === neuron);
  }

  function select() {
    if (!here) return;
    model.set("selected", [here.layer, here.neuron]);
    model.save_changes();
    show();
  }

  function typed(event) {
    if (event.key in ARROWS && places.length) {
      go(here ? beside(here, ARROWS[event.key]) : chosen() ?? places[0]);
    } else if (event.key === "Enter" || event.key === " ") {
      select();
    } else if (event.key === "Escape") {
      go(null);
    } else {
      return;
    }
    event.preventDefault();
    event.stopPropagation();
  }

  function read() {
    places = model.get("places").flatMap((group) => (group.box ? cells(group) : dots(group)));
    here = null;
    el.hidden = places.length === 0;
    show();
  }

  el.addEventListener("pointermove", (event) => go(under(event)));
  el.addEventListener("pointerleave", () => go(null));
  el.addEventListener("pointerdown", (event) => go(under(event)));
  el.addEventListener("click", select); // what is named; a click's own place is in whole pixels
  el.addEventListener("keydown", typed);
  el.addEventListener("blur", () => go(null));
  const resized = new ResizeObserver(show);
  resized.observe(el);
  model.on("change:places", read);
  model.on("change:selected", show);
  model.on("change:twin", show);
  read();
  return () => {
    resized.disconnect();
    model.off("change:places", read);
    model.off("change:selected", show);
    model.off("change:twin", show);
  };
}

export default { render };
