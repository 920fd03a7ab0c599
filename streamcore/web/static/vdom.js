// Pages are functions from data to a tree; render() changes the document only where the tree changed, so focus, scroll
// position and opened details survive each tick. Text only ever becomes a text node and a value only ever an attribute:
// there is no way to markup from data.
const SVG = "http://www.w3.org/2000/svg";

/** A node: h("p", {class: "dim", onclick: fn, key: 1}, "text", child, [children]). Falsy children are left out. */
export function h(tag, props, ...children) {
  return { tag, props: props ?? {}, key: props?.key, children: flatten(children, []) };
}

function flatten(children, out) {
  for (const child of children) {
    if (Array.isArray(child)) flatten(child, out);
    else if (child !== null && child !== undefined && child !== false && child !== true && child !== "")
      out.push(typeof child === "object" ? child : { text: String(child) });
  }
  return out;
}

/** Make `root`'s children equal to the tree. */
export function render(root, ...tree) {
  const active = document.activeElement;
  patchChildren(root, flatten(tree, []), root.namespaceURI === SVG);
  // A focused element that was moved in the document loses its focus.
  if (active && active !== document.activeElement && active.isConnected && root.contains(active))
    active.focus({ preventScroll: true });
}

function create(node, svg) {
  if (node.text !== undefined) return document.createTextNode(node.text);
  svg = svg || node.tag === "svg";
  const element = svg ? document.createElementNS(SVG, node.tag) : document.createElement(node.tag);
  setProps(element, {}, node.props);
  element.$node = node;
  if (!node.props.island) for (const child of node.children) element.append(create(child, svg));
  if (node.props.hook) queueMicrotask(() => node.props.hook(element));
  return element;
}

function patch(element, node, svg) {
  const before = element.$node;
  if (before === node) return; // the very same tree: somebody remembered it
  setProps(element, before.props, node.props);
  element.$node = node;
  // An island's children belong to its hook (a chart of another library).
  if (!node.props.island) patchChildren(element, node.children, svg || node.tag === "svg");
  else if (node.props.update) node.props.update(element);
}

function fits(element, node) {
  if (node.text !== undefined) return element.nodeType === Node.TEXT_NODE;
  return element.$node?.tag === node.tag && element.$node.key === node.key;
}

function patchChildren(parent, nodes, svg) {
  const keyed = new Map();
  for (const child of parent.childNodes) if (child.$node?.key !== undefined) keyed.set(child.$node.key, child);
  let cursor = parent.firstChild;
  for (const node of nodes) {
    let match = node.key !== undefined ? keyed.get(node.key) : cursor && fits(cursor, node) ? cursor : null;
    if (match && !fits(match, node)) match = null;
    if (!match) {
      parent.insertBefore(create(node, svg), cursor);
      continue;
    }
    if (match === cursor) cursor = cursor.nextSibling;
    else parent.insertBefore(match, cursor);
    if (node.text !== undefined) {
      if (match.data !== node.text) match.data = node.text;
    } else patch(match, node, svg);
  }
  while (cursor) {
    const next = cursor.nextSibling;
    cursor.remove();
    cursor = next;
  }
}

const ONCE = new Set(["value", "checked", "open"]); // the reader's from then on

function setProps(element, before, props) {
  for (const name in before) if (!(name in props)) setProp(element, name, null);
  for (const name in props) {
    if (props[name] === before[name]) continue;
    if (ONCE.has(name) && name in before) continue;
    setProp(element, name, props[name]);
  }
}

function setProp(element, name, value) {
  if (name === "key" || name === "hook" || name === "island" || name === "update") return;
  if (name.startsWith("on")) element[name] = value;
  else if (name === "style") {
    // Through the object model, which the content security policy allows; the attribute it does not.
    for (const property in value ?? {}) element.style.setProperty(property, value[property]);
  } else if (name === "value" || name === "checked") element[name] = value ?? "";
  else if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else element.setAttribute(name, value === true ? "" : String(value));
}

/** Remembers a subtree per key as long as its version stays the same: remember(key, version, () => h(…)). */
export function memory() {
  const known = new Map();
  return (key, version, build) => {
    const found = known.get(key);
    if (found && found.version === version) return found.node;
    const node = build();
    known.set(key, { version, node });
    if (known.size > 2000) known.delete(known.keys().next().value);
    return node;
  };
}
