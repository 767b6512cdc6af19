// What is loaded when it is needed.

/** Before a person does anything a key or a button is pressed: then is the time to load what that will take. */
export function onFirstTouch(act) {
  for (const touch of ["pointerdown", "keydown"]) addEventListener(touch, () => act().catch(() => {}), { once: true, passive: true });
}

const loaded = new Map(); // promises of modules, by name

/** The module `views/<name>.js`, once the sheets `styles` of what it shows are there, too; and in `place` its markup, where that comes
 * later. */
export function load(name, styles, place = null) {
  if (!loaded.has(name)) {
    const coming = loadOnce(name, styles.split(" "), place);
    loaded.set(name, coming);
    coming.catch(() => loaded.delete(name)); // to be tried again
  }
  return loaded.get(name);
}

async function loadOnce(name, styles, place) {
  const sheets = styles.map((style) => styled(`../css/${style}.css`));
  const [module, markup] = await Promise.all([import(`./${name}.js`), place ? textOf(`../parts/${name}.html`) : "", ...sheets]);
  place?.insertAdjacentHTML("beforeend", markup);
  return module;
}

async function textOf(path) {
  const answer = await fetch(new URL(path, import.meta.url));
  if (!answer.ok) throw new Error(`${path} could not be loaded: HTTP status ${answer.status}`);
  return answer.text();
}

function styled(path) {
  const { href, pathname } = new URL(path, import.meta.url);
  if (document.querySelector(`link[rel="stylesheet"][href="${pathname}"]`)) return null;
  const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href });
  return new Promise((resolve, reject) => {
    link.addEventListener("load", resolve);
    link.addEventListener("error", () => {
      link.remove();
      reject(new Error(`${path} could not be loaded`));
    });
    document.head.append(link);
  });
}
