"use strict";

/* What both pages need. */

const element = (id) => document.getElementById(id);

async function unpack(id) {
  const bytes = Uint8Array.from(atob(element(id).textContent.trim()), (letter) => letter.charCodeAt(0));
  const plain = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(plain).arrayBuffer();
}

function choice(id, options, pressed, onChoose) {
  const box = element(id);
  box.replaceChildren(...options.map(([text, value]) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.dataset.value = value;
    button.setAttribute("aria-pressed", String(value === pressed));
    button.addEventListener("click", () => onChoose(value));
    return button;
  }));
  box.hidden = options.length < 2;
}
