// The what-if page follows its sliders. Everything works without this file, by its button.
"use strict";

const form = document.getElementById("what-if");
if (form) {
  const effect = document.getElementById("effect");
  const progress = document.getElementById("progress");
  let timer = 0;
  let running = null;

  const outputOf = (slider) => form.querySelector(`output[for="${slider.id}"]`);

  function written(slider) {
    return slider.step === "1" ? slider.value : String(Number(Number(slider.value).toFixed(6)));
  }

  async function load() {
    if (running) running.abort();
    const mine = (running = new AbortController());
    const query = new URLSearchParams(new FormData(form));
    progress.className = "note";
    progress.textContent = "Judging recorded decisions…";
    try {
      const answer = await fetch(`${form.dataset.effect}?${query}`, { signal: mine.signal });
      if (!answer.ok) throw new Error(String(answer.status));
      effect.innerHTML = await answer.text();
      history.replaceState(null, "", `${location.pathname}?${query}`);
      // Screen readers say it; everybody else sees it anyway.
      progress.className = "hidden";
      progress.textContent = effect.querySelector(".lead, .problem").textContent;
    } catch (error) {
      if (mine.signal.aborted) return;
      progress.textContent = "The effect could not be loaded. Reload the page, or try again.";
    }
  }

  form.addEventListener("input", (event) => {
    const slider = event.target;
    if (slider.type === "range") {
      const value = written(slider);
      outputOf(slider).textContent = value;
      slider.parentElement.classList.toggle("moved", value !== slider.dataset.original);
    }
    clearTimeout(timer);
    timer = setTimeout(load, 200);
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    clearTimeout(timer);
    load();
  });
}
