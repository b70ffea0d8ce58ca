// What has to answer at once in the browser: keys, scrolling, fingers, cropping. Everything else is page.py.
window.bw = (() => {
  const find = (selector) => document.querySelector(selector);
  const send = (name, ...values) => emitEvent("bw-" + name, ...values);
  const typing = (element) => element && /^(INPUT|TEXTAREA|SELECT)$/.test(element.tagName);
  let cropping = null, toast = 0, pressed = 0;

  function start() {
    const grid = find(".grid");
    if (!grid) return setTimeout(start, 30);
    const measure = () => grid.clientWidth && send("size", grid.clientWidth, grid.clientHeight);
    new ResizeObserver(measure).observe(grid);
    measure();
    let waiting = false;
    grid.addEventListener("scroll", () => {
      if (waiting) return;
      waiting = true;
      setTimeout(() => { waiting = false; send("scroll", grid.scrollTop); }, 40);
    }, { passive: true });
    new MutationObserver((changes) => {
      if (changes.some((change) => change.target.classList.contains("rows"))) paint();
    }).observe(grid, { childList: true, subtree: true });
    swipe(find(".stage"));
    document.body.classList.add("ready");
  }

  // keys
  document.addEventListener("keydown", (event) => {
    if (cropping) return cropKey(event);
    if (typing(event.target)) {
      if (event.key === "Escape") { event.target.blur(); if (find(".card.caption")) send("do", "close"); }
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) saveCaption();
      else if (event.key === "Enter" && event.target.tagName === "INPUT") event.target.blur();
      return;
    }
    const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
    const undo = (event.ctrlKey || event.metaKey) && key === "z";
    if ((event.ctrlKey || event.metaKey || event.altKey) && !undo) return;
    const action = bw.keys[key];
    if (!action || action === "select") return;
    event.preventDefault();
    if (event.repeat && (!bw.repeated.includes(action) || event.timeStamp - pressed < 90)) return;
    pressed = event.timeStamp;
    if (document.activeElement && document.activeElement.tagName === "BUTTON") document.activeElement.blur();
    send("do", action, key, event.shiftKey);
  });

  // mouse and fingers
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do]"), cell = event.target.closest(".cell");
    if (event.target.closest("[data-caption=save]")) return saveCaption();
    if (event.target.closest("[data-crop]")) return cropButton(event.target.closest("[data-crop]").dataset.crop);
    if (button) {
      if (button.dataset.do === "close-one") { send("do", "close"); return send("do", "close"); }
      return send("do", button.dataset.do, button.dataset.value || "");
    }
    if (cell) send("cell", +cell.dataset.n, event.shiftKey, event.pointerType === "touch" || !!cell.closest(".twins"));
    else if (event.target.closest(".sheet") && !cropping && event.pointerType !== "touch") send("do", "magnify");
  });
  document.addEventListener("dblclick", (event) => {
    const cell = event.target.closest(".grid .cell");
    if (cell) send("cell", +cell.dataset.n, false, true);
  });
  let slow = 0;
  document.addEventListener("input", (event) => {
    const name = event.target.dataset && event.target.dataset.change;
    if (!name) return;
    if (event.target.tagName === "SELECT") event.target.blur();  // or the next key would choose another word
    clearTimeout(slow);
    slow = setTimeout(() => send("change", name, event.target.value), event.target.tagName === "SELECT" ? 0 : 250);
  });
  function swipe(stage) {
    let from = null;
    stage.addEventListener("touchstart", (event) => {
      from = event.touches.length === 1 && !cropping ? event.touches[0] : null;
    }, { passive: true });
    stage.addEventListener("touchend", (event) => {
      if (!from || !event.changedTouches.length) return;
      const x = event.changedTouches[0].clientX - from.clientX, y = event.changedTouches[0].clientY - from.clientY;
      if (Math.abs(x) > 60 && Math.abs(x) > 2 * Math.abs(y)) send("do", x < 0 ? "right" : "left");
      from = null;
    }, { passive: true });
  }

  // what page.py asks for
  // Rows that were drawn before a mark was made may arrive after it, so marks are kept and made again on new rows.
  const marks = { states: new Map(), current: -1, selected: new Set() };
  function mark(states, current, selected, anew) {
    if (anew) marks.states.clear();
    for (const [number, state] of Object.entries(states)) marks.states.set(+number, state);
    marks.current = current;
    marks.selected = new Set(selected);
    paint();
  }
  function paint() {
    if (marks.current < 0) return;
    for (const cell of document.querySelectorAll(".grid .cell")) {
      const number = +cell.dataset.n, known = marks.states.get(number);
      cell.classList.toggle("current", number === marks.current);
      cell.classList.toggle("selected", marks.selected.has(number));
      if (!known) continue;
      cell.dataset.state = known[0];
      const sign = cell.querySelector(".cropped");
      if (known[1] && !sign) cell.insertAdjacentHTML("beforeend", '<i class="cropped"></i>');
      else if (!known[1] && sign) sign.remove();
    }
  }
  function scrollTo(top, tries = 20) {
    const grid = find(".grid"), tall = find(".tall");
    if (!grid) return;
    if (tall && tall.offsetHeight < top && tries) return setTimeout(() => scrollTo(top, tries - 1), 20);
    grid.scrollTop = top;
  }
  function tell(text, bad) {
    let box = find(".toast");
    if (!box) { box = document.createElement("div"); box.className = "toast"; document.body.append(box); }
    box.textContent = text;
    box.classList.toggle("bad", bad);
    box.classList.add("on");
    clearTimeout(toast);
    toast = setTimeout(() => box.classList.remove("on"), bad ? 12000 : 2600);
  }
  const later = (selector, what, tries = 40) => {
    const found = find(selector);
    if (found) what(found); else if (tries) setTimeout(() => later(selector, what, tries - 1), 25);
  };
  const search = () => later("input[type=search]", (input) => { input.focus(); input.select(); });
  const write = () => later(".card.caption textarea", (area) => { area.focus(); area.setSelectionRange(1e6, 1e6); });
  function saveCaption() {
    const area = find(".card.caption textarea");
    if (area) send("caption", +area.dataset.n, area.value);
  }

  // cropping
  const SHAPES = [["free", 0], ["as it is", -1], ["1:1", 1], ["2:3", 2 / 3], ["3:2", 3 / 2], ["3:4", 3 / 4], ["4:3", 4 / 3]];
  function crop(number, width, height, box) {
    const image = find(".stage .sheet img");
    const shown = image && image.src.includes(`/picture/${number}/`);
    if (!shown || !image.complete) return setTimeout(() => crop(number, width, height, box), 30);
    endCrop();
    const sheet = find(".stage .sheet");
    document.body.classList.add("cropping");
    cropping = { number, width, height, sheet, shape: 0, box: box || [0, 0, width, height] };
    sheet.insertAdjacentHTML("beforeend",
      '<div class="crop"><b data-part="nw"></b><b data-part="ne"></b><b data-part="sw"></b><b data-part="se"></b><span></span></div>');
    document.body.insertAdjacentHTML("beforeend",
      '<div class="crop-bar"><button data-crop="shape"></button><button data-crop="whole">whole</button>' +
      '<button data-crop="leave">leave</button><button class="strong" data-crop="use">use this part</button></div>');
    sheet.addEventListener("pointerdown", cropDrag);
    cropDraw();
  }
  function endCrop() {
    if (!cropping) return;
    cropping.sheet.removeEventListener("pointerdown", cropDrag);
    for (const element of document.querySelectorAll(".crop, .crop-bar")) element.remove();
    document.body.classList.remove("cropping");
    cropping = null;
  }
  function cropDraw() {
    const { box, width, height, sheet, shape } = cropping, frame = sheet.querySelector(".crop");
    const percent = [box[1] / height, 1 - box[2] / width, 1 - box[3] / height, box[0] / width].map((x) => 100 * x + "%");
    frame.style.inset = percent.join(" ");
    frame.querySelector("span").textContent = `${box[2] - box[0]} x ${box[3] - box[1]}`;
    find("[data-crop=shape]").textContent = "shape: " + SHAPES[shape][0];
  }
  function cropRatio() {
    const ratio = SHAPES[cropping.shape][1];
    return ratio < 0 ? cropping.width / cropping.height : ratio;
  }
  function cropSet(left, top, right, bottom) {
    const { width, height } = cropping, least = Math.min(16, width, height);
    left = Math.max(0, Math.min(left, width - least));
    top = Math.max(0, Math.min(top, height - least));
    cropping.box = [left, top, Math.min(width, Math.max(right, left + least)), Math.min(height, Math.max(bottom, top + least))]
      .map(Math.round);
    cropDraw();
  }
  function cropFit() {  // the largest frame of the shape inside the present one, on the same centre
    const ratio = cropRatio();
    if (!ratio) return cropDraw();
    const [l, t, r, b] = cropping.box, w = Math.min(r - l, (b - t) * ratio), h = w / ratio;
    const x = (l + r) / 2, y = (t + b) / 2;
    cropSet(x - w / 2, y - h / 2, x + w / 2, y + h / 2);
  }
  function cropMove(dx, dy) {
    const [l, t, r, b] = cropping.box, { width, height } = cropping;
    dx = Math.max(-l, Math.min(dx, width - r));
    dy = Math.max(-t, Math.min(dy, height - b));
    cropSet(l + dx, t + dy, r + dx, b + dy);
  }
  function cropStretch(part, x, y) {  // a corner goes to (x, y), the opposite one stays
    const { width, height } = cropping, ratio = cropRatio(), [l, t, r, b] = cropping.box;
    x = Math.max(0, Math.min(x, width));
    y = Math.max(0, Math.min(y, height));
    const fx = part.includes("w") ? r : l, fy = part.includes("n") ? b : t;
    const sx = part.includes("w") ? -1 : 1, sy = part.includes("n") ? -1 : 1;
    let w = Math.max(16, sx * (x - fx)), h = Math.max(16, sy * (y - fy));
    if (ratio) {
      const room = Math.min(sx > 0 ? width - fx : fx, (sy > 0 ? height - fy : fy) * ratio);
      w = Math.min(Math.max(w, h * ratio), room);
      h = w / ratio;
    }
    const [x2, y2] = [fx + sx * w, fy + sy * h];
    cropSet(Math.min(fx, x2), Math.min(fy, y2), Math.max(fx, x2), Math.max(fy, y2));
  }
  function cropDrag(event) {
    const { sheet } = cropping, frame = sheet.getBoundingClientRect();
    const at = (e) => [(e.clientX - frame.left) / frame.width * cropping.width, (e.clientY - frame.top) / frame.height * cropping.height];
    const part = event.target.dataset.part, inside = event.target.closest(".crop");
    const begin = at(event), box = [...cropping.box];
    event.preventDefault();
    const move = (e) => {
      if (!cropping) return;
      const [x, y] = at(e);
      if (part) cropStretch(part, x, y);
      else if (inside) { cropping.box = [...box]; cropMove(x - begin[0], y - begin[1]); }
      else cropSet(Math.min(begin[0], x), Math.min(begin[1], y), Math.max(begin[0], x), Math.max(begin[1], y));
    };
    const up = () => {
      window.removeEventListener("pointermove", move);
      window.removeEventListener("pointerup", up);
      if (cropping && !part && !inside) cropFit();
    };
    window.addEventListener("pointermove", move);
    window.addEventListener("pointerup", up);
  }
  function cropButton(what) {
    const { number, box } = cropping;
    if (what === "shape") { cropping.shape = (cropping.shape + 1) % SHAPES.length; return cropFit(); }
    endCrop();
    if (what === "use") send("crop", number, box);
    if (what === "whole") send("crop", number, null);
    if (what === "leave") send("do", "close");
  }
  function cropKey(event) {
    const step = Math.max(1, Math.round(Math.max(cropping.width, cropping.height) / (event.altKey ? 400 : 64)));
    const [l, t, r, b] = cropping.box;
    const arrows = { ArrowLeft: [-step, 0], ArrowRight: [step, 0], ArrowUp: [0, -step], ArrowDown: [0, step] };
    const what = { Enter: "use", Escape: "leave", Delete: "whole", a: "shape", A: "shape" }[event.key];
    event.preventDefault();
    if (what) return cropButton(what);
    const by = arrows[event.key];
    if (!by) return;
    if (event.shiftKey) cropStretch("se", r + by[0], cropRatio() ? b : b + by[1]);
    else if (l === 0 && t === 0 && r === cropping.width && b === cropping.height) cropSet(l + step, t + step, r - step, b - step);
    else cropMove(...by);
  }
  return { start, mark, scrollTo, tell, search, write, crop, keys: {}, repeated: [] };
})();
