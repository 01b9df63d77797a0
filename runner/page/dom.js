// Elements out of data, and the page brought in line with them. Whatever comes from elsewhere becomes text here, never markup.

const SVG = 'http://www.w3.org/2000/svg';
const SVG_TAGS = new Set(['svg', 'path', 'rect', 'line', 'circle', 'g', 'title']);

// Controls, what turns the direction of text, and what is not there to be seen.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]/g;

/** Text as it may be shown. Line ends and tabs stay. */
export const clean = (text) => String(text).replace(/\r\n/g, '\n').replace(HIDDEN, '\ufffd');

/** An element that is to be there. Properties are attributes; `on…` are listeners; `key` tells it from its like. */
export function h(tag, props, ...children) {
  return { tag, props: props ?? {}, children: children.flat(Infinity).filter((child) => child != null && child !== false) };
}

/** Makes the children of `parent` what is wanted, changing as little as may be: focus and what was typed stay. */
export function render(parent, ...wanted) {
  const children = wanted.flat(Infinity).filter((child) => child != null && child !== false);
  const keyed = new Map();
  for (const node of parent.childNodes) {
    if (node.$key != null) keyed.set(node.$key, node);
  }
  let at = parent.firstChild;
  for (const child of children) {
    let node = reusable(child, at, keyed);
    if (!node) node = make(child);
    if (node === at) at = at.nextSibling;
    else parent.insertBefore(node, at);
    update(node, child);
  }
  while (at) {
    const next = at.nextSibling;
    at.remove();
    at = next;
  }
}

function reusable(child, at, keyed) {
  if (typeof child !== 'object') return at?.nodeType === Node.TEXT_NODE ? at : null;
  const fits = (node) => node?.nodeType === Node.ELEMENT_NODE && node.localName === child.tag.toLowerCase();
  if (child.props.key != null) {
    const node = keyed.get(child.props.key);
    return fits(node) ? node : null;
  }
  return fits(at) && at.$key == null ? at : null;
}

function make(child) {
  if (typeof child !== 'object') return document.createTextNode('');
  const node = SVG_TAGS.has(child.tag) ? document.createElementNS(SVG, child.tag) : document.createElement(child.tag);
  node.$key = child.props.key;
  node.$props = {};
  return node;
}

function update(node, child) {
  if (typeof child !== 'object') {
    const text = clean(child);
    if (node.data !== text) node.data = text;
    return;
  }
  const before = node.$props ?? {};
  for (const name of Object.keys(before)) {
    if (!(name in child.props)) set(node, name, null);
  }
  for (const [name, value] of Object.entries(child.props)) {
    if (before[name] !== value) set(node, name, value);
  }
  node.$props = child.props;
  // What stands in these is a person's.
  if (child.props.opaque) return;
  render(node, child.children);
}

function set(node, name, value) {
  if (name === 'key' || name === 'opaque') return;
  if (name.startsWith('on')) node[name] = value;
  else if (name === 'value') node.value = value ?? '';
  else if (name === 'selected') node.selected = Boolean(value);
  else if (value == null || value === false) node.removeAttribute(name);
  else node.setAttribute(name, value === true ? '' : clean(value));
}

/** Tells those who do not see the page what changed on it. */
export function say(text) {
  const said = document.getElementById('said');
  // The same words again would not be read.
  said.textContent = said.textContent === clean(text) ? `${clean(text)} ` : clean(text);
}
