// The page of tokens: written by the server; here the secret of a new one, which is shown once, learns to be copied.

import { copyOnPress } from "./views/copy.js";

const said = document.getElementById("said");

copyOnPress((sentence) => {
  said.textContent = sentence;
});
document.documentElement.dataset.ready = "";
