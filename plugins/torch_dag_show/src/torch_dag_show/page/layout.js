"use strict";
// Where everything is drawn. Each expanded group is laid out on its own, from the innermost to the whole graph, so that
// no layout ever sees more than the children of one group. All loops are iterative but those over the group hierarchy.

const GAP_X = 18, GAP_Y = 30, PADDING = 14, TITLE = 22, LINE = 14, CHARACTER = 6.6;
const LONGEST_ROUTED_EDGE = 40, SWEEPS = 6;

// The tree of groups that vertices are drawn in, which have dotted names. Returns {root, leaves, groups}.
function buildTree(nodes) {
  const root = newGroup("", null);
  const groups = new Map([["", root]]);
  const leaves = nodes.map((node, index) => {
    let parent = root;
    const parts = node.home ? node.home.split(".") : [];
    for (let depth = 1; depth <= parts.length; depth++) {
      const path = parts.slice(0, depth).join(".");
      let group = groups.get(path);
      if (!group) {
        group = newGroup(path, parent);
        groups.set(path, group);
        parent.children.push(group);
      }
      parent = group;
    }
    const leaf = { name: node.name, label: node.name.split(".").pop(), parent, index, node, children: null };
    parent.children.push(leaf);
    return leaf;
  });
  for (const leaf of leaves) {
    for (let group = leaf.parent; group; group = group.parent) {
      group.flops += leaf.node.flops;
      group.parameters += leaf.node.parameters;
      group.count += 1;
      group.members.push(leaf);
      if (group.index < 0) group.index = leaf.index;
    }
  }
  return { root, leaves, groups };
}

function newGroup(path, parent) {
  return {
    name: path, label: path.split(".").pop(), parent, children: [], index: -1, flops: 0, parameters: 0, count: 0, members: [],
    edges: new Map(), ports: new Map(), expanded: false,
  };
}

// Give every edge to the group in which its two ends part, and a port to every group whose border it crosses.
function liftEdges(leaves, edges) {
  for (const [source, target] of edges) {
    const from = chainOf(leaves[source]), to = chainOf(leaves[target]);
    let depth = 0;
    while (from[depth] === to[depth]) depth++;
    const common = from[depth - 1];
    addEdge(common, from[depth], to[depth], source);
    for (let i = depth; i + 1 < from.length; i++) addEdge(from[i], from[i + 1], port(from[i], "out", source), source);
    for (let i = depth; i + 1 < to.length; i++) addEdge(to[i], port(to[i], "in", source), to[i + 1], source);
  }
}

function chainOf(item) {
  const chain = [];
  for (; item; item = item.parent) chain.push(item);
  return chain.reverse();
}

function port(group, side, value) {
  const key = `${side}:${value}`;
  if (!group.ports.has(key)) group.ports.set(key, { port: side, value, group });
  return group.ports.get(key);
}

function addEdge(group, from, to, value) {
  const ends = group.edges.get(from) || group.edges.set(from, new Map()).get(from);
  if (!ends.has(to)) ends.set(to, value);
}

// Lay out one item and all that is visible inside it; sets w and h, and x and y relative to its group.
function layout(item) {
  if (!item.children || !item.expanded) {
    const lines = linesOf(item);
    item.w = Math.max(70, ...lines.map((line) => line.length * CHARACTER + 20));
    item.h = 10 + lines.length * LINE;
    return;
  }
  for (const child of item.children) layout(child);
  const ports = [...item.ports.values()];
  for (const each of ports) each.w = each.h = 0;
  const layers = layersOf(item, ports);
  order(layers);
  place(layers);
  setCoordinates(item, layers);
}

// Longest-path ranks: ports of incoming values first, those of outgoing values last.
function layersOf(group, ports) {
  const children = [...group.children].sort((a, b) => a.index - b.index);
  const position = new Map(children.map((child, index) => [child, index]));
  const rank = new Map();
  for (const child of children) rank.set(child, 1);
  for (const child of children) {
    for (const to of (group.edges.get(child) || new Map()).keys()) {
      if (position.get(to) > position.get(child)) rank.set(to, Math.max(rank.get(to), rank.get(child) + 1));
    }
  }
  let last = 1;
  for (const value of rank.values()) last = Math.max(last, value);
  for (const each of ports) rank.set(each, each.port === "in" ? 0 : last + 1);
  const layers = Array.from({ length: last + 2 }, () => []);
  for (const [item, r] of rank) layers[r].push({ item, w: item.w, h: item.h, up: [], down: [] });
  const cells = new Map(layers.flat().map((cell) => [cell.item, cell]));
  group.routes = [];
  for (const [from, ends] of group.edges) {
    for (const [to, value] of ends) group.routes.push(route(cells.get(from), cells.get(to), value, rank, layers));
  }
  return layers;
}

// Connect two cells through invisible cells in the layers between them. Edges against the order, and very long ones,
// run beside the group instead.
function route(from, to, value, rank, layers) {
  const first = rank.get(from.item), last = rank.get(to.item);
  if (last <= first || last - first > LONGEST_ROUTED_EDGE) return { from, to, value, cells: null };
  const cells = [from];
  for (let r = first + 1; r < last; r++) {
    const cell = { item: null, w: 2, h: 0, up: [], down: [] };
    layers[r].push(cell);
    cells.push(cell);
  }
  cells.push(to);
  for (let i = 1; i < cells.length; i++) {
    cells[i - 1].down.push(cells[i]);
    cells[i].up.push(cells[i - 1]);
  }
  return { from, to, value, cells };
}

// Order the cells of each layer by the mean position of their neighbours (barycentre heuristic).
function order(layers) {
  for (const layer of layers) layer.forEach((cell, index) => { cell.at = index; });
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const down = sweep % 2 === 0, side = down ? "up" : "down";
    for (const layer of down ? layers : [...layers].reverse()) {
      for (const cell of layer) cell.key = cell[side].length ? mean(cell[side], (other) => other.at) : cell.at;
      layer.sort((a, b) => a.key - b.key || a.at - b.at);
      layer.forEach((cell, index) => { cell.at = index; });
    }
  }
}

// Move each cell as close to the mean of its neighbours as the order within its layer allows.
function place(layers) {
  for (const layer of layers) layer.forEach((cell) => { cell.x = 0; });
  for (const layer of layers) spread(layer, () => 0);
  for (let sweep = 0; sweep < SWEEPS; sweep++) {
    const down = sweep % 2 === 0, side = down ? "up" : "down";
    for (const layer of down ? layers : [...layers].reverse()) {
      spread(layer, (cell) => wish(cell, cell[side]));
    }
  }
}

// The middle of the boxes next to a cell, or else of the edges that pass by: boxes are aligned with boxes.
function wish(cell, neighbours) {
  const boxes = neighbours.filter((other) => other.item);
  const close = boxes.length ? boxes : neighbours;
  return close.length ? mean(close, (other) => other.x) : cell.x;
}

// Least squares under minimal distances: neighbours that overlap are merged and share one shift (pool adjacent
// violators).
function spread(layer, wished) {
  const blocks = [];
  let offset = 0;
  for (let i = 0; i < layer.length; i++) {
    if (i) offset += (layer[i - 1].w + layer[i].w) / 2 + GAP_X;
    layer[i].offset = offset;
    const weight = layer[i].item ? 1 : 0.1; // where both want one place, edges give way to boxes
    let block = { start: i, sum: (wished(layer[i]) - offset) * weight, weight };
    while (blocks.length && blocks[blocks.length - 1].sum / blocks[blocks.length - 1].weight >= block.sum / block.weight) {
      const before = blocks.pop();
      block = { start: before.start, sum: before.sum + block.sum, weight: before.weight + block.weight };
    }
    blocks.push(block);
  }
  blocks.forEach((block, index) => {
    const end = index + 1 < blocks.length ? blocks[index + 1].start : layer.length;
    for (let i = block.start; i < end; i++) layer[i].x = layer[i].offset + block.sum / block.weight;
  });
}

function setCoordinates(group, layers) {
  let left = Infinity, right = -Infinity;
  for (const cell of layers.flat()) {
    left = Math.min(left, cell.x - cell.w / 2);
    right = Math.max(right, cell.x + cell.w / 2);
  }
  const aside = group.routes.filter((each) => !each.cells).length;
  const title = group.parent ? TITLE : 0;
  const least = group.parent ? titleOf(group).length * CHARACTER + 20 : 0;
  const width = Math.max(right - left, least - 2 * PADDING);
  const shift = PADDING - left + (width - (right - left)) / 2;
  let y = title + (layers[0].length ? 8 : PADDING);
  layers.forEach((layer, index) => {
    const height = Math.max(0, ...layer.map((cell) => cell.h));
    const isPort = index === 0 || index === layers.length - 1;
    for (const cell of layer) {
      cell.x += shift;
      cell.band = index === 0 ? [0, 0] : [y, y + height];
      cell.y = index === 0 ? 0 : y + (height - cell.h) / 2;
      if (cell.item) { cell.item.x = cell.x - cell.w / 2; cell.item.y = cell.y; }
    }
    y += height + (isPort && index === 0 ? 8 : GAP_Y);
  });
  group.w = width + 2 * PADDING + Math.min(aside, 12) * 8;
  group.h = y - GAP_Y;
  for (const cell of layers[layers.length - 1]) {
    cell.y = cell.item.y = group.h;
    cell.band = [group.h, group.h];
  }
  group.layers = layers;
}

function mean(items, value) {
  let sum = 0;
  for (const item of items) sum += value(item);
  return sum / items.length;
}

// Everything visible in coordinates of the whole picture: boxes of groups and vertices, and lines.
function flatten(root) {
  const boxes = [], lines = [];
  const stack = [[root, 0, 0]];
  while (stack.length) {
    const [item, x, y] = stack.pop();
    item.left = x;
    item.top = y;
    boxes.push(item);
    if (!item.children || !item.expanded) continue;
    let lane = 0;
    for (const each of item.routes) lines.push(lineOf(item, each, x, y, each.cells ? 0 : ++lane));
    for (const child of item.children) stack.push([child, x + child.x, y + child.y]);
  }
  return { boxes, lines };
}

function lineOf(group, each, x, y, lane) {
  const [fromX, fromY] = endOf(each.from, each.value, "out"), [toX, toY] = endOf(each.to, each.value, "in");
  const points = [[x + fromX, y + fromY]];
  if (each.cells) { // vertical within each layer, so that it crosses no box there
    points.push([x + fromX, y + each.from.band[1]]);
    for (const cell of each.cells.slice(1, -1)) for (const end of cell.band) points.push([x + cell.x, y + end]);
    points.push([x + toX, y + each.to.band[0]]);
  } else {
    const aside = x + group.w - 6 - Math.min(lane, 12) * 8;
    points.push([aside, y + fromY + GAP_Y / 2], [aside, y + toY - GAP_Y / 2]);
  }
  points.push([x + toX, y + toY]);
  return { points, value: each.value };
}

// The point at which a value leaves or enters a cell: the port of an expanded group, else the middle of a box's side.
function endOf(cell, value, side) {
  const item = cell.item;
  if (item.port) return [cell.x, item.port === "in" ? 0 : item.y];
  const at = item.expanded && item.ports.get(`${side}:${value}`);
  const y = side === "out" ? cell.y + cell.h : cell.y;
  return at ? [cell.x - cell.w / 2 + at.x, y] : [cell.x, y];
}

function linesOf(item) {
  return item.children ? [titleOf(item), `${item.count} vertices`] : [item.label, ...detailsOf(item.node)];
}

function titleOf(group) {
  return group.label;
}

function detailsOf(node) {
  const lines = [];
  if (node.op && node.op !== node.name) lines.push(node.op);
  if (node.shape) lines.push(node.was ? `${node.shape} (was ${node.was})` : node.shape);
  return lines;
}

if (typeof module !== "undefined") module.exports = { buildTree, liftEdges, layout, flatten };
