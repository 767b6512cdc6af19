// What is loaded when it is needed.

/** Before a person does anything a key or a button is pressed: then is the time to load what that will take. */
export function onFirstTouch(act) {
  for (const touch of ["pointerdown", "keydown"]) addEventListener(touch, () => act().catch(() => {}), { once: true, passive: true });
}

/** The module `views/<name>.js`, once the style of what it shows is there, too. */
export async function load(name, style) {
  const link = Object.assign(document.createElement("link"), { rel: "stylesheet", href: new URL(`../css/${style}.css`, import.meta.url) });
  const [module] = await Promise.all([
    import(`./${name}.js`),
    new Promise((resolve, reject) => {
      link.addEventListener("load", resolve);
      link.addEventListener("error", () => reject(new Error(`${style}.css could not be loaded`)));
      document.head.append(link);
    }),
  ]);
  return module;
}
