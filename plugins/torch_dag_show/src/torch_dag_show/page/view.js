"use strict";
// The interactive page: draws what layout.js placed, and answers mouse, touch and keyboard.

const data = JSON.parse(document.getElementById("graph").textContent);
const tree = buildTree(data.nodes);
liftEdges(tree.leaves, data.edges);
const byName = new Map(tree.leaves.map((leaf) => [leaf.name, leaf]));
const users = data.nodes.map(() => []), operands = data.nodes.map(() => []);
for (const [source, target] of data.edges) {
  users[source].push(target);
  operands[target].push(source);
}
const overlaysOf = data.nodes.map(() => []);
data.overlays.forEach((overlay, index) => overlay.places.forEach(([vertex]) => {
  if (!overlaysOf[vertex].includes(index)) overlaysOf[vertex].push(index);
}));
const mostFlops = Math.max(1, ...data.nodes.map((node) => node.flops));

const svg = document.getElementById("picture"), world = document.getElementById("world");
const panel = document.getElementById("details"), results = document.getElementById("results");
const search = document.getElementById("search"), colouring = document.getElementById("colouring");
const READABLE = 0.8;
const state = { x: 0, y: 0, scale: 1, selected: null, overlay: -1, boxes: [], lines: [] };

function arrange() {
  tree.root.expanded = true;
  layout(tree.root);
  Object.assign(state, flatten(tree.root));
  draw();
}

// Expand the outermost groups first, as long as the picture stays small.
function expandSome(limit) {
  let visible = tree.root.children.length;
  const queue = tree.root.children.filter((item) => item.children);
  while (queue.length) {
    const group = queue.shift();
    if (visible + group.children.length > limit) continue;
    visible += group.children.length;
    group.expanded = true;
    queue.push(...group.children.filter((item) => item.children));
  }
}

// Expand the groups whose names have fewer parts than this.
function expandTo(depth) {
  for (const group of tree.groups.values()) group.expanded = group.name.split(".").length < depth;
}

function setAll(expanded) {
  for (const group of tree.groups.values()) group.expanded = expanded;
  arrange();
  fit(READABLE);
}

// Drawing -------------------------------------------------------------------------------------------------------

function draw() {
  const { clientWidth, clientHeight } = svg;
  const margin = 100 / state.scale;
  const left = -state.x / state.scale - margin, right = (clientWidth - state.x) / state.scale + margin;
  const top = -state.y / state.scale - margin, bottom = (clientHeight - state.y) / state.scale + margin;
  const boxes = state.boxes.filter((b) => b.parent && b.left < right && b.left + b.w > left && b.top < bottom && b.top + b.h > top);
  const near = selectedValues();
  let all = "", chosen = "";
  for (const line of state.lines) {
    if (!crosses(line.points, left, right, top, bottom)) continue;
    if (near.has(line.value)) chosen += curve(line.points); else all += curve(line.points);
  }
  const groups = boxes.filter((box) => box.expanded && box.children);
  const parts = groups.map(groupBox);
  parts.push(`<path class="line" d="${all}"/><path class="line chosen" d="${chosen}"/>`);
  parts.push(...groups.map(groupLabel)); // above the lines that cross them
  const withText = state.scale > 0.3;
  for (const box of boxes) if (!(box.expanded && box.children)) parts.push(itemBox(box, withText));
  world.innerHTML = parts.join("");
  world.setAttribute("transform", `translate(${state.x} ${state.y}) scale(${state.scale})`);
}

function crosses(points, left, right, top, bottom) {
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  return Math.min(...xs) < right && Math.max(...xs) > left && Math.min(...ys) < bottom && Math.max(...ys) > top;
}

function curve(points) {
  let path = `M${points[0][0].toFixed(1)} ${points[0][1].toFixed(1)}`;
  for (let i = 1; i < points.length; i++) {
    const [x, y] = points[i], [px, py] = points[i - 1], middle = ((py + y) / 2).toFixed(1);
    path += `C${px.toFixed(1)} ${middle} ${x.toFixed(1)} ${middle} ${x.toFixed(1)} ${y.toFixed(1)}`;
  }
  return path;
}

function groupBox(group) {
  return `<g class="group${group === state.selected ? " selected" : ""}" data-item="${escaped(group.name)}" data-group="1">
    <rect x="${group.left}" y="${group.top}" width="${group.w}" height="${group.h}" rx="8"/></g>`;
}

function groupLabel(group) {
  return `<text class="label" x="${group.left + 10}" y="${group.top + 15}">${escaped(group.label)}</text>`;
}

// Whether a box, or anything in a closed one, had other sizes in the graph that is compared with.
function isChanged(item) {
  item.changed ??= item.children ? membersOf(item).some((leaf) => leaf.node.was) : Boolean(item.node.was);
  return item.changed;
}

function itemBox(item, withText) {
  const kind = item.children ? "closed" : item.node.kind;
  const colour = colourOf(item);
  const text = !withText ? "" : linesOf(item).map((line, index) =>
    `<text x="${item.left + item.w / 2}" y="${item.top + 16 + index * LINE}" class="${index ? "fact" : "name"}">${escaped(line)}</text>`).join("");
  return `<g class="item ${kind}${isChanged(item) ? " changed" : ""}${item === state.selected ? " selected" : ""}" data-item="${escaped(item.name)}"${item.children ? ' data-group="1"' : ""}>
    <rect x="${item.left}" y="${item.top}" width="${item.w}" height="${item.h}" rx="6"${colour ? ` style="fill:${colour}"` : ""}/>${text}</g>`;
}

// A colour for a box, or none for that of the style sheet.
function colourOf(item) {
  const leaves = membersOf(item);
  if (state.overlay >= 0) return leaves.some((leaf) => overlaysOf[leaf.index].includes(state.overlay)) ? hue(state.overlay) : "";
  if (colouring.value === "flops") {
    const share = Math.sqrt((item.children ? item.flops : item.node.flops) / (item.children ? data.flops || 1 : mostFlops));
    return share ? `hsl(14 85% 55% / ${(0.12 + 0.75 * Math.min(1, share)).toFixed(2)})` : "";
  }
  if (colouring.value === "overlays") {
    const first = leaves.find((leaf) => overlaysOf[leaf.index].length);
    return first ? hue(overlaysOf[first.index][0]) : "";
  }
  return "";
}

function hue(index) {
  return `hsl(${(index * 137.508) % 360} 60% 55% / 0.55)`;
}

function membersOf(item) {
  return item.children ? item.members : [item];
}

function selectedValues() {
  const item = state.selected;
  if (!item || item.children) return new Set();
  return new Set([item.index, ...operands[item.index]]);
}

function escaped(text) {
  return String(text).replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

// Moving --------------------------------------------------------------------------------------------------------

let pending = 0;
function moved() {
  world.setAttribute("transform", `translate(${state.x} ${state.y}) scale(${state.scale})`);
  clearTimeout(pending);
  pending = setTimeout(draw, 60);
}

function zoom(factor, x, y) {
  const scale = Math.min(4, Math.max(0.005, state.scale * factor));
  state.x = x - (x - state.x) * scale / state.scale;
  state.y = y - (y - state.y) * scale / state.scale;
  state.scale = scale;
  moved();
}

// Show the whole picture, or with a least scale its upper end.
function fit(least) {
  const { w, h } = tree.root;
  const scale = Math.min(1.2, svg.clientWidth / (w + 40), svg.clientHeight / (h + 40));
  state.scale = Math.max(scale, least);
  state.x = (svg.clientWidth - w * state.scale) / 2;
  state.y = Math.max(10, (svg.clientHeight - h * state.scale) / 2);
  draw();
}

function centre(item) {
  state.scale = Math.max(state.scale, 0.7);
  state.x = svg.clientWidth / 2 - (item.left + item.w / 2) * state.scale;
  state.y = svg.clientHeight / 2 - (item.top + Math.min(item.h, 200) / 2) * state.scale;
  draw();
}

// Choosing ------------------------------------------------------------------------------------------------------

function reveal(item) {
  for (let group = item.parent; group; group = group.parent) group.expanded = true;
  arrange();
  select(item);
  centre(item);
}

function select(item) {
  state.selected = item;
  panel.innerHTML = item ? (item.children ? groupDetails(item) : vertexDetails(item)) : modelDetails();
  draw();
}

function toggle(group) {
  const before = [group.left, group.top];
  group.expanded = !group.expanded;
  arrange();
  state.x += (before[0] - group.left) * state.scale;
  state.y += (before[1] - group.top) * state.scale;
  select(group);
}

function showOverlay(index) {
  state.overlay = state.overlay === index ? -1 : index;
  select(state.selected);
}

function modelDetails() {
  const facts = data.facts.map(([name, value]) => row(name, value)).join("");
  const list = data.overlays.map((overlay, index) => overlayButton(index)).join("");
  return `<h2>${escaped(data.title)}</h2><table>${facts}</table>${list ? `<h3>${escaped(data.overlay_title)}</h3>${list}` : ""}`;
}

function groupDetails(group) {
  const found = [...new Set(membersOf(group).flatMap((leaf) => overlaysOf[leaf.index]))];
  return `<h2>${escaped(group.name)}</h2><table>${row("vertices", group.count.toLocaleString("en"))}
    ${costs(group)}</table><button data-toggle="${escaped(group.name)}">${group.expanded ? "collapse" : "expand"}</button>
    ${found.length ? `<h3>${escaped(data.overlay_title)}</h3>${found.map(overlayButton).join("")}` : ""}`;
}

function vertexDetails(leaf) {
  const node = leaf.node;
  const list = (title, indices) => indices.length
    ? `<h3>${title}</h3>${indices.map((i) => `<button data-vertex="${escaped(data.nodes[i].name)}">${escaped(data.nodes[i].name)}</button>`).join("")}` : "";
  const found = overlaysOf[leaf.index];
  return `<h2>${escaped(node.name)}</h2><table>${row("op", node.op)}${node.args ? row("constants", node.args) : ""}
    ${row("output", node.shape || "-")}${node.was ? row("output before", node.was) : ""}${costs(node)}</table>
    ${list("reads", operands[leaf.index])}${list("read by", users[leaf.index])}
    ${found.length ? `<h3>${escaped(data.overlay_title)}</h3>${found.map(overlayButton).join("")}` : ""}`;
}

function costs(item) {
  const share = data.flops ? ` (${(100 * item.flops / data.flops).toFixed(1)} %)` : "";
  return row("FLOPs", item.flops.toLocaleString("en") + share) + row("parameters", item.parameters.toLocaleString("en"));
}

function row(name, value) {
  return `<tr><th>${escaped(name)}</th><td>${escaped(value)}</td></tr>`;
}

function overlayButton(index) {
  const overlay = data.overlays[index], on = index === state.overlay;
  const places = on ? `<ul>${overlay.places.map(([vertex, text]) =>
    `<li><button data-vertex="${escaped(data.nodes[vertex].name)}">${escaped(text)}</button></li>`).join("")}</ul>` : "";
  return `<div class="overlay"><button data-overlay="${index}" aria-pressed="${on}"><i style="background:${hue(index)}"></i>
    ${escaped(overlay.name)} <small>${escaped(overlay.text)}</small></button>${places}</div>`;
}

function find(text) {
  const wanted = text.trim().toLowerCase();
  if (!wanted) return [];
  const items = [...tree.leaves, ...[...tree.groups.values()].filter((group) => group.parent)];
  return items.filter((item) => item.name.toLowerCase().includes(wanted)
    || (item.node && item.node.op.toLowerCase().includes(wanted))).slice(0, 50);
}

// Events --------------------------------------------------------------------------------------------------------

function itemAt(target) {
  const box = target.closest && target.closest("[data-item]");
  if (!box) return null;
  return box.dataset.group ? tree.groups.get(box.dataset.item) : byName.get(box.dataset.item);
}

let drag = null;
svg.addEventListener("pointerdown", (event) => {
  drag = { x: event.clientX, y: event.clientY, far: false };
});
svg.addEventListener("pointermove", (event) => {
  if (!drag || !event.buttons) return;
  if (!drag.far && Math.hypot(event.clientX - drag.x, event.clientY - drag.y) < 4) return;
  if (!drag.far) svg.setPointerCapture(event.pointerId);
  state.x += event.clientX - drag.x;
  state.y += event.clientY - drag.y;
  drag = { x: event.clientX, y: event.clientY, far: true };
  moved();
});
svg.addEventListener("click", (event) => {
  if (drag && drag.far) return;
  select(itemAt(event.target));
});
svg.addEventListener("dblclick", (event) => {
  const item = itemAt(event.target);
  if (item && item.children) toggle(item);
});
svg.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (!event.ctrlKey && !event.metaKey) {
    state.x -= event.deltaX;
    state.y -= event.deltaY;
    moved();
    return;
  }
  const box = svg.getBoundingClientRect();
  zoom(Math.exp(-event.deltaY * 0.005), event.clientX - box.left, event.clientY - box.top);
}, { passive: false });
panel.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  if (button.dataset.vertex) reveal(byName.get(button.dataset.vertex));
  if (button.dataset.overlay) showOverlay(Number(button.dataset.overlay));
  if (button.dataset.toggle) toggle(tree.groups.get(button.dataset.toggle));
});
search.addEventListener("input", () => {
  results.innerHTML = find(search.value).map((item) =>
    `<button role="option" data-found="${escaped(item.name)}"${item.children ? ' data-group="1"' : ""}>${escaped(item.name)} <small>${escaped(item.node ? item.node.op : `${item.count} vertices`)}</small></button>`).join("");
});
search.addEventListener("keydown", (event) => {
  const [first] = event.key === "Enter" ? find(search.value) : [];
  if (first) choose(first);
  if (event.key === "Escape") { search.value = results.innerHTML = ""; search.blur(); }
});
results.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) choose(button.dataset.group ? tree.groups.get(button.dataset.found) : byName.get(button.dataset.found));
});
function choose(item) {
  results.innerHTML = "";
  reveal(item);
}
colouring.addEventListener("change", () => { state.overlay = -1; select(state.selected); });
document.getElementById("expand").addEventListener("click", () => setAll(true));
document.getElementById("collapse").addEventListener("click", () => setAll(false));
document.getElementById("fit").addEventListener("click", () => fit(0.005));
document.getElementById("theme").addEventListener("click", () => {
  const dark = getComputedStyle(document.documentElement).colorScheme.trim() === "dark";
  document.documentElement.dataset.theme = dark ? "light" : "dark";
});
const KEYS = {
  "/": () => search.focus(), e: () => setAll(true), c: () => setAll(false), f: () => fit(0.005), Escape: () => { state.overlay = -1; select(null); },
  "+": () => zoom(1.25, svg.clientWidth / 2, svg.clientHeight / 2), "-": () => zoom(0.8, svg.clientWidth / 2, svg.clientHeight / 2),
  ArrowUp: () => { state.y += 80; moved(); }, ArrowDown: () => { state.y -= 80; moved(); },
  ArrowLeft: () => { state.x += 80; moved(); }, ArrowRight: () => { state.x -= 80; moved(); },
  Enter: () => { if (state.selected && state.selected.children) toggle(state.selected); },
};
document.addEventListener("keydown", (event) => {
  const busy = /INPUT|SELECT|BUTTON/.test(document.activeElement.tagName);
  if (busy || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
  event.preventDefault();
  KEYS[event.key]();
});
window.addEventListener("resize", draw);

if (data.depth) expandTo(data.depth); else expandSome(60);
arrange();
fit(READABLE);
select(null);
