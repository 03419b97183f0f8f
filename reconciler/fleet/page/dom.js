// Elements from data, and the document changed no more than the data changed.
//
// Everything is built from strings as text nodes, never from markup. Styles that depend on numbers
// are set through CSSOM: the content security policy refuses style attributes.

// h("p.note", {id: "x"}, "text", child, null) makes an element; strings become text nodes.
export function h(kind, attributes = {}, ...children) {
  const [tag, ...classes] = kind.split(".");
  const element = document.createElement(tag);
  if (classes.length) element.className = classes.join(" ");
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== false) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== ""));
  return element;
}

const made = new WeakMap();

// Makes the children of `parent` those that `items` describe. An item is {key, sign, build}: a
// child is kept as it is while key and sign stay, so that a thousand rows of which one changed
// cost one row, and focus, selection and scroll position stay where they were.
export function fill(parent, items) {
  const focused = document.activeElement;
  const old = new Map([...parent.children].map((element) => [made.get(element)?.key, element]));
  const wanted = items.map(({ key, sign, build }) => {
    let element = old.get(key);
    old.delete(key);
    if (!element) element = build();
    else if (made.get(element).sign !== sign) element = morph(element, build());
    made.set(element, { key, sign });
    return element;
  });
  const kept = new Set(wanted);
  for (const element of [...parent.children]) {
    if (!kept.has(element)) element.remove();
  }
  let next = parent.firstElementChild;
  for (const element of wanted) {
    if (element === next) next = next.nextElementSibling;
    else parent.insertBefore(element, next);
  }
  // A row that has moved has lost the focus on the way.
  if (focused !== document.activeElement && focused?.isConnected) {
    focused.focus({ preventScroll: true });
  }
}

// Fills `parent` with what `children` are now, without keys.
export function show(parent, ...children) {
  const fresh = parent.cloneNode(false);
  fresh.append(...children.flat(Infinity).filter((child) => child !== null && child !== ""));
  morph(parent, fresh);
}

// Makes `old` like `fresh` with as few changes as there are differences; returns what is there now.
function morph(old, fresh) {
  if (old.nodeName !== fresh.nodeName) {
    old.replaceWith(fresh);
    return fresh;
  }
  if (old.nodeType === Node.TEXT_NODE) {
    if (old.data !== fresh.data) old.data = fresh.data;
    return old;
  }
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (name === "style") old.style.cssText = fresh.style.cssText;
    else if (old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  const wanted = [...fresh.childNodes];
  while (old.childNodes.length > wanted.length) old.lastChild.remove();
  wanted.forEach((child, index) => {
    if (index < old.childNodes.length) morph(old.childNodes[index], child);
    else old.append(child);
  });
  return old;
}
