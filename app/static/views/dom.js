// Writing to the page without disturbing it: nothing is touched that would not change, and focus is never lost.

/** The element below `root` (or `root` itself) that shows the field `name`. */
export function field(root, name) {
  return root.querySelector(`[data-field="${name}"]`);
}

export function setText(element, text) {
  const wanted = String(text);
  if (element.textContent !== wanted) element.textContent = wanted;
}

/** Set, or with null remove, an attribute. */
export function setAttribute(element, name, value) {
  if (value === null) {
    if (element.hasAttribute(name)) element.removeAttribute(name);
  } else if (element.getAttribute(name) !== String(value)) {
    element.setAttribute(name, value);
  }
}

export function setHidden(element, hidden) {
  if (element.hidden !== hidden) element.hidden = hidden;
}

/** Switch a button on or off. A browser drops the focus of a button that goes off, so it is given to `heir` before. */
export function setDisabled(button, disabled, heir) {
  if (button.disabled === disabled) return;
  if (disabled && button === document.activeElement) heir.focus({ preventScroll: true });
  button.disabled = disabled;
}

/** A sentence in a place that is hidden while there is none. */
export function setNotice(element, sentence) {
  setText(element, sentence ?? "");
  setHidden(element, !sentence);
}

/** A moment in a field that holds one <time>. */
export function setMoment(element, moment, text) {
  const time = element.querySelector("time");
  setText(time, text);
  setAttribute(time, "datetime", moment);
}

/** A list of sentences, hidden while it is empty. */
export function setLines(list, lines) {
  const same = list.children.length === lines.length && lines.every((line, place) => list.children[place].textContent === line);
  if (!same) {
    list.replaceChildren(
      ...lines.map((line) => {
        const item = document.createElement("li");
        item.textContent = line;
        return item;
      }),
    );
  }
  setHidden(list, lines.length === 0);
}

/** A copy of a template's one element. */
export function clone(templateId) {
  return document.getElementById(templateId).content.firstElementChild.cloneNode(true);
}

/** Give `element`, which has the same parts as `model`, the attributes that only that has. */
export function mark(element, model) {
  for (const { name, value } of model.attributes) if (!element.hasAttribute(name)) element.setAttribute(name, value);
  for (const [place, child] of [...element.children].entries()) mark(child, model.children[place]);
}

/**
 * Make the children of `container` that carry `attribute` be `items`, in that order. What is there already stays the
 * same element, so that focus, selection and transitions live on; if the focused one goes, focus goes to `heir`.
 *
 *   keyed(list, { items, attribute: "data-job-id", key: (job) => job.job_id, make: () => clone("job-template"), fill, heir })
 */
export function keyed(container, { items, attribute, key, make, fill, heir }) {
  const known = new Map();
  for (const child of container.children) if (child.hasAttribute(attribute)) known.set(child.getAttribute(attribute), child);
  const wanted = new Set(items.map(key));
  for (const [id, element] of known) {
    if (wanted.has(id)) continue;
    if (element.contains(document.activeElement)) heir.focus({ preventScroll: true });
    element.remove();
  }
  // The keyed children are the last ones (a table's caption and head come first), so null, the end, is right without any.
  let place = container.querySelector(`:scope > [${attribute}]`);
  for (const item of items) {
    let element = known.get(key(item));
    if (!element) {
      element = make(item);
      element.setAttribute(attribute, key(item));
    }
    fill(element, item);
    if (element === place) place = element.nextElementSibling;
    else container.insertBefore(element, place);
  }
}
