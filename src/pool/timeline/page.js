'use strict';
// Draws the bars of a run, and tells about each in words. All text of tasks goes to the page as text nodes and to the canvas as strings:
// nothing of it is ever read as markup. Nothing moves by itself.
(() => {
  const data = JSON.parse(document.getElementById('data').textContent);
  const by = (id) => document.getElementById(id);
  const chart = by('chart'), stage = by('stage'), card = by('card'), table = by('table');
  const context = chart.getContext('2d');

  // ---- What there is

  // The order in which the rows of the data are written.
  const [TASK, ROW, START, RAN, VERDICT, STATUS, ATTEMPT, PLACE, WAITED, USER, SYSTEM, MEMORY, PAUSE] = Array(13).keys();
  const bars = data.bars;
  const SUCCEEDED = 0, RUNNING = data.words.length - 1;
  const span = Math.max(data.span, 1);

  const label = (bar) => data.tasks[bar[TASK]][1];
  const command = (bar) => {
    const told = data.tasks[bar[TASK]][2];
    return told === null ? label(bar) : told === false ? 'not known yet' : told;
  };
  const status = (bar) => data.statuses[bar[STATUS]];
  const place = (bar) => data.places[bar[PLACE]];
  const hasRun = (bar) => bar[ROW] !== null;
  const end = (bar) => bar[START] + bar[RAN];

  // For each slot its bars in the order of time, and the latest end up to each of them: where to begin to look.
  const rows = data.slots.map(() => ({ bars: [], latest: [] }));
  bars.forEach((bar, index) => {
    if (!hasRun(bar)) return;
    const { bars: own, latest } = rows[bar[ROW]];
    latest.push(Math.max(end(bar), latest.length ? latest[latest.length - 1] : 0));
    own.push(index);
  });
  const firstIndex = (count, isBefore) => {
    let low = 0, high = count;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (isBefore(middle)) low = middle + 1; else high = middle;
    }
    return low;
  };

  // ---- Words. A number and its unit stay on one line.

  const duration = (us) => {
    if (us < 1e3) return `${us}\u00a0µs`;
    if (us < 1e6) return `${+(us / 1e3).toPrecision(3)}\u00a0ms`;
    if (us < 60e6) return `${+(us / 1e6).toPrecision(3)}\u00a0s`;
    const seconds = Math.round(us / 1e6), minutes = Math.floor(seconds / 60);
    return minutes < 60 ? `${minutes} min ${seconds % 60} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  };
  const moment = (us) => `${+(us / 1e6).toFixed(6)}\u00a0s`;
  const bytes = (count) => {
    const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB'];
    let unit = 0;
    while (count >= 1023.95 && unit + 1 < units.length) { count /= 1024; unit += 1; }
    return unit === 0 ? `${count}\u00a0B` : `${count.toFixed(1)}\u00a0${units[unit]}`;
  };
  const known = (value, words) => (value === null ? null : words(value));

  const facts = (bar) => [
    ['command', command(bar)],
    ['status', status(bar) + (bar[PAUSE] === null ? '' : bar[PAUSE] === 0 ? ', run again at once' : `, run again after ${duration(bar[PAUSE])}`)],
    ['ran', hasRun(bar) ? `${duration(bar[RAN])}, from ${moment(bar[START])} to ${moment(end(bar))}` : `never; over at ${moment(bar[START])}`],
    ['waited', known(bar[WAITED], duration)],
    ['processor', known(bar[USER], (user) => `${duration(user)} user, ${duration(bar[SYSTEM])} system`)],
    ['memory', known(bar[MEMORY], (memory) => `at most ${bytes(memory)}`)],
    ['task', `${data.tasks[bar[TASK]][0]}, attempt ${bar[ATTEMPT]}`],
    ['where', hasRun(bar) ? `slot ${data.slots[bar[ROW]]}, ${place(bar)}` : place(bar)],
  ].filter(([, value]) => value !== null);

  // ---- Looks

  const dark = matchMedia('(prefers-color-scheme: dark)');
  const calm = matchMedia('(prefers-reduced-motion: reduce)');
  let colors, fills;
  // A sign for each kind of end, so that colour is not the only one: lines, dots or a frame. Drawn on a tile of 8 by 8.
  const SIGNS = {
    1: (pen) => { pen.rect(1, 1, 2, 2); pen.rect(5, 5, 2, 2); pen.fill(); },
    2: (pen) => { pen.moveTo(-2, 10); pen.lineTo(10, -2); pen.moveTo(-2, 2); pen.lineTo(2, -2); pen.moveTo(6, 10); pen.lineTo(10, 6); },
    3: (pen) => { pen.moveTo(0, 0); pen.lineTo(8, 8); pen.moveTo(8, 0); pen.lineTo(0, 8); },
    4: (pen) => { pen.moveTo(2, 0); pen.lineTo(2, 8); pen.moveTo(6, 0); pen.lineTo(6, 8); },
    5: (pen) => { pen.moveTo(0, 2); pen.lineTo(8, 2); pen.moveTo(0, 6); pen.lineTo(8, 6); },
    6: (pen) => { pen.rect(0, 0, 4, 4); pen.rect(4, 4, 4, 4); pen.fill(); },
    7: (pen) => { pen.moveTo(4, 1); pen.lineTo(4, 7); pen.moveTo(1, 4); pen.lineTo(7, 4); },
    8: (pen) => { pen.rect(2, 2, 4, 4); },
    9: (pen) => { pen.moveTo(-2, -2); pen.lineTo(10, 10); pen.moveTo(6, -2); pen.lineTo(10, 2); pen.moveTo(-2, 6); pen.lineTo(2, 10); },
    10: (pen) => { pen.rect(3, 3, 2, 2); pen.fill(); },
  };
  const readLooks = () => {
    const style = getComputedStyle(document.documentElement);
    const value = (name) => style.getPropertyValue(name).trim();
    colors = { page: value('--page'), ink: value('--ink'), quiet: value('--quiet'), line: value('--line'), band: value('--band'),
      accent: value('--accent'), barInk: value('--bar-ink'), bars: data.words.map((_, verdict) => value(`--bar-${verdict}`)) };
    fills = colors.bars.map((color, verdict) => {
      if (!SIGNS[verdict]) return color;
      const tile = document.createElement('canvas');
      tile.width = tile.height = 8;
      const pen = tile.getContext('2d');
      pen.fillStyle = color;
      pen.fillRect(0, 0, 8, 8);
      pen.fillStyle = pen.strokeStyle = value('--sign');
      pen.lineWidth = 1.5;
      pen.beginPath();
      SIGNS[verdict](pen);
      pen.stroke();
      return context.createPattern(tile, 'repeat');
    });
    for (const swatch of document.querySelectorAll('.swatch')) {
      const pen = swatch.getContext('2d');
      pen.fillStyle = fills[swatch.dataset.verdict];
      pen.fillRect(0, 0, swatch.width, swatch.height);
    }
  };

  // ---- The picture

  const GUTTER = 76, AXIS = 26, LINE = 24, GAP = 3, NARROW = 3;
  const view = { from: 0, to: span };
  let matches = null, chosen = null, range = null, isAsked = false, width = 0, height = 0;

  const perPixel = () => (view.to - view.from) / Math.max(width - GUTTER - 8, 1);
  const toX = (us) => GUTTER + (us - view.from) / perPixel();
  const toTime = (x) => view.from + (x - GUTTER) * perPixel();
  const toY = (row) => AXIS + row * LINE - stage.scrollTop;

  const ask = () => {
    if (isAsked) return;
    isAsked = true;
    requestAnimationFrame(draw);
  };

  const measure = () => {
    const whole = AXIS + Math.max(rows.length, 1) * LINE + 4;
    const visible = Math.min(whole, Math.max(Math.round(innerHeight * 0.7) - 2, AXIS + 4 * LINE));
    by('height').style.height = `${whole}px`;
    chart.style.height = `${visible}px`;
    width = chart.clientWidth;
    height = visible;
    const ratio = devicePixelRatio || 1;
    chart.width = Math.round(width * ratio);
    chart.height = Math.round(height * ratio);
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    ask();
  };

  // The marks of the axis: the smallest step that leaves room for their words.
  const MINUTE = 60e6, HOUR = 60 * MINUTE, DAY = 24 * HOUR;
  const STEPS = [...[1, 2, 5, 10, 15, 30].map((count) => count * MINUTE), ...[1, 2, 3, 6, 12].map((count) => count * HOUR)];
  const stepOf = (wanted) => {
    const unit = 10 ** Math.floor(Math.log10(wanted));
    const round = Math.max([1, 2, 5, 10].map((factor) => factor * unit).find((size) => size >= wanted) ?? unit, 1);
    if (round < MINUTE) return round;
    return STEPS.find((size) => size >= wanted) ?? Math.ceil(wanted / DAY) * DAY;
  };
  const minutes = (us) => {
    const hours = Math.floor(us / HOUR), rest = Math.round((us - hours * HOUR) / MINUTE);
    return hours === 0 ? `${rest} min` : rest === 0 ? `${hours} h` : `${hours} h ${rest} min`;
  };

  const drawAxis = () => {
    const step = stepOf(perPixel() * 110);
    const decimals = Math.max(6 - Math.floor(Math.log10(step) + 1e-9), 0);
    context.fillStyle = colors.page;
    context.fillRect(0, 0, width, AXIS);
    context.font = '12px system-ui, sans-serif';
    context.textBaseline = 'middle';
    for (let at = Math.ceil(view.from / step) * step; at <= view.to; at += step) {
      const x = Math.round(toX(at)) + 0.5;
      context.strokeStyle = colors.line;
      context.beginPath();
      context.moveTo(x, AXIS - 6);
      context.lineTo(x, height);
      context.stroke();
      context.fillStyle = colors.quiet;
      const words = step < MINUTE ? `${(at / 1e6).toFixed(decimals)} s` : minutes(at);
      if (x + context.measureText(words).width < width) context.fillText(words, x + 3, AXIS / 2);
    }
  };

  const drawBar = (bar, y) => {
    const left = Math.max(toX(bar[START]), GUTTER), right = Math.min(toX(end(bar)), width);
    // Neighbours that can be told apart are.
    const size = Math.max(right - left - (right - left > NARROW ? 1 : 0), 1.5);
    // The sign stands still in its bar when the picture moves.
    context.save();
    context.translate(left, y);
    context.fillStyle = fills[bar[VERDICT]];
    context.fillRect(0, 0, size, LINE - 2 * GAP);
    if (bar[VERDICT] === 1 || bar[VERDICT] === 7) {
      context.strokeStyle = colors.quiet;
      context.strokeRect(0.5, 0.5, Math.max(size - 1, 0.5), LINE - 2 * GAP - 1);
    }
    if (size > NARROW && bar[PAUSE] !== null) {
      // It comes again: a notch at its end.
      context.fillStyle = colors.page;
      context.beginPath();
      context.moveTo(size, 4);
      context.lineTo(size - Math.min(6, size / 2), (LINE - 2 * GAP) / 2);
      context.lineTo(size, LINE - 2 * GAP - 4);
      context.fill();
    }
    if (size > 36) drawLabel(bar, size);
    context.restore();
  };

  const drawLabel = (bar, size) => {
    const plain = bar[VERDICT] === SUCCEEDED || bar[VERDICT] === RUNNING;
    const words = plain ? label(bar) : `${status(bar)} · ${label(bar)}`;
    context.beginPath();
    context.rect(3, 0, size - 8, LINE - 2 * GAP);
    context.clip();
    context.font = '12px system-ui, sans-serif';
    context.textBaseline = 'middle';
    const shown = words.length > size / 3 ? `${words.slice(0, Math.ceil(size / 3))}…` : words;
    if (SIGNS[bar[VERDICT]]) {
      context.fillStyle = colors.bars[bar[VERDICT]];
      context.fillRect(4, 2, context.measureText(shown).width + 6, LINE - 2 * GAP - 4);
    }
    context.fillStyle = colors.barInk;
    context.fillText(shown, 7, (LINE - 2 * GAP) / 2 + 0.5);
  };

  const drawRow = (row) => {
    const y = toY(row) + GAP;
    const { bars: own, latest } = rows[row];
    let filled = -1, filledWith = SUCCEEDED, drawn = 0;
    for (let at = firstIndex(own.length, (at) => latest[at] < view.from); at < own.length; at += 1) {
      const index = own[at], bar = bars[index];
      if (bar[START] > view.to) break;
      if (end(bar) < view.from) continue;
      const left = Math.floor(toX(bar[START]));
      const isDim = matches !== null && !matches[index];
      drawn += 1;
      // Of many on one dot one is drawn, and what did not succeed goes first.
      const isOver = Math.floor(toX(end(bar))) <= filled;
      if (isOver && (isDim || bar[VERDICT] === SUCCEEDED || filledWith !== SUCCEEDED) && index !== chosen && matches === null) continue;
      context.globalAlpha = isDim ? 0.15 : 1;
      drawBar(bar, y);
      context.globalAlpha = 1;
      filled = Math.max(filled, Math.floor(toX(end(bar))), left);
      filledWith = bar[VERDICT];
    }
    return drawn;
  };

  const draw = () => {
    isAsked = false;
    context.clearRect(0, 0, width, height);
    const first = Math.max(Math.floor(stage.scrollTop / LINE), 0);
    const last = Math.min(Math.ceil((stage.scrollTop + height - AXIS) / LINE), rows.length);
    for (let row = first; row < last; row += 1) {
      context.fillStyle = row % 2 ? colors.band : colors.page;
      context.fillRect(0, toY(row), width, LINE);
    }
    drawAxis();
    context.save();
    context.beginPath();
    context.rect(0, AXIS, width, height - AXIS);
    context.clip();
    let drawn = 0;
    for (let row = first; row < last; row += 1) drawn += drawRow(row);
    drawFrame();
    for (let row = first; row < last; row += 1) {
      context.fillStyle = row % 2 ? colors.band : colors.page;
      context.fillRect(0, toY(row), GUTTER - 2, LINE);
      context.fillStyle = colors.quiet;
      context.font = '12px system-ui, sans-serif';
      context.textBaseline = 'middle';
      context.fillText(`slot ${data.slots[row]}`, 8, toY(row) + LINE / 2);
    }
    context.restore();
    if (range) {
      context.globalAlpha = 0.25;
      context.fillStyle = colors.accent;
      context.fillRect(Math.min(range.from, range.to), 0, Math.abs(range.to - range.from), height);
      context.globalAlpha = 1;
    }
    chart.dataset.drawn = drawn;
  };

  const drawFrame = () => {
    const bar = chosen === null ? null : bars[chosen];
    if (!bar || !hasRun(bar)) return;
    const left = Math.max(toX(bar[START]), GUTTER - 3), right = Math.min(toX(end(bar)), width + 3);
    if (right < left) return;
    context.strokeStyle = colors.ink;
    context.lineWidth = 2;
    context.strokeRect(left - 1, toY(bar[ROW]) + GAP - 1, Math.max(right - left, 1.5) + 2, LINE - 2 * GAP + 2);
    context.lineWidth = 1;
  };

  // ---- Moving in time

  const look = (from, to) => {
    const size = Math.min(Math.max(to - from, 20), span);
    const start = Math.min(Math.max(from, 0), span - size);
    view.from = start;
    view.to = start + size;
    ask();
  };
  const zoom = (factor, at = (view.from + view.to) / 2) => {
    look(at - (at - view.from) * factor, at + (view.to - at) * factor);
  };
  const pan = (us) => look(view.from + us, view.to + us);
  const isWhole = () => view.from <= 0 && view.to >= span;

  // The bar must be seen: its time, at a size that can be seen, and its row.
  const reveal = (bar) => {
    const size = view.to - view.from;
    if (bar[RAN] > size || bar[START] < view.from || end(bar) > view.to) {
      const around = Math.max(size, bar[RAN] * 1.2), middle = bar[START] + bar[RAN] / 2;
      look(middle - around / 2, middle + around / 2);
    }
    const top = bar[ROW] * LINE;
    if (top < stage.scrollTop) stage.scrollTop = top;
    if (top + LINE > stage.scrollTop + height - AXIS) stage.scrollTop = top + LINE - height + AXIS;
  };

  // ---- Which bar

  const pick = (x, y) => {
    const row = Math.floor((y - AXIS + stage.scrollTop) / LINE);
    if (y < AXIS || x < GUTTER || !rows[row]) return null;
    const near = 2 * perPixel(), at = toTime(x);
    const { bars: own, latest } = rows[row];
    let best = null, bestAway = Infinity;
    for (let index = firstIndex(own.length, (index) => latest[index] < at - near); index < own.length; index += 1) {
      const bar = bars[own[index]];
      if (bar[START] > at + near) break;
      const away = Math.max(bar[START] - at, at - end(bar), 0);
      if (away <= near && away <= bestAway) { best = own[index]; bestAway = away; }
    }
    return best;
  };

  const element = (name, words, className) => {
    const made = document.createElement(name);
    if (words !== undefined) made.textContent = words;
    if (className) made.className = className;
    return made;
  };

  const showCard = (index, x, y) => {
    const bar = bars[index], list = element('dl');
    for (const [name, value] of facts(bar)) list.append(element('dt', name), element('dd', value, name === 'command' ? 'command' : ''));
    card.replaceChildren(element('div', label(bar), 'label'), list);
    card.hidden = false;
    const size = card.getBoundingClientRect();
    const left = Math.max(Math.min(x + 14, innerWidth - size.width - 8), 8);
    const below = y + 18 + size.height < innerHeight;
    card.style.left = `${left}px`;
    card.style.top = `${below ? y + 18 : Math.max(y - size.height - 12, 8)}px`;
  };
  const hideCard = () => { card.hidden = true; };

  const choose = (index) => {
    chosen = index;
    hideCard();
    for (const row of table.tBodies[0].rows) row.classList.toggle('chosen', +row.dataset.bar === index);
    ask();
    if (index === null) return;
    const bar = bars[index];
    by('said').textContent = `${label(bar)}: ${facts(bar).map(([name, value]) => `${name} ${value}`).join('; ')}`;
    if (!hasRun(bar)) return;
    reveal(bar);
    const box = chart.getBoundingClientRect();
    showCard(index, box.left + Math.max(toX(bar[START]), GUTTER), box.top + toY(bar[ROW]) + LINE - 14);
  };

  const candidates = (row) => (matches === null ? rows[row].bars : rows[row].bars.filter((index) => matches[index]));

  const step = (by) => {
    if (chosen === null || !hasRun(bars[chosen])) return chooseFirst();
    const own = candidates(bars[chosen][ROW]);
    const here = firstIndex(own.length, (at) => own[at] < chosen);
    const next = own[by > 0 && own[here] !== chosen ? here : here + by];
    if (next !== undefined) choose(next);
  };
  const chooseFirst = (fromEnd) => {
    const all = rows.map((_, row) => candidates(row)).filter((own) => own.length);
    if (!all.length) return;
    const ends = all.map((own) => (fromEnd ? own[own.length - 1] : own[0]));
    choose(ends.reduce((best, index) => ((index < best) !== Boolean(fromEnd) ? index : best)));
  };
  const stepRow = (by) => {
    if (chosen === null || !hasRun(bars[chosen])) return chooseFirst();
    const middle = bars[chosen][START] + bars[chosen][RAN] / 2;
    for (let row = bars[chosen][ROW] + by; rows[row]; row += by) {
      const own = candidates(row);
      if (!own.length) continue;
      const at = firstIndex(own.length, (at) => end(bars[own[at]]) < middle);
      return choose(own[Math.min(at, own.length - 1)]);
    }
  };

  // ---- The pointer

  let pressed = null;
  const position = (event) => {
    const box = chart.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };
  chart.addEventListener('pointerdown', (event) => {
    if (event.button !== 0) return;
    const at = position(event);
    pressed = { x: at.x, moved: false, pans: event.shiftKey, from: view.from, to: view.to };
    chart.setPointerCapture(event.pointerId);
  });
  chart.addEventListener('pointermove', (event) => {
    const at = position(event);
    if (pressed) {
      pressed.moved ||= Math.abs(at.x - pressed.x) > 4;
      if (!pressed.moved) return;
      hideCard();
      const away = (pressed.x - at.x) * (pressed.to - pressed.from) / Math.max(width - GUTTER - 8, 1);
      if (pressed.pans) look(pressed.from + away, pressed.to + away);
      else range = { from: Math.max(pressed.x, GUTTER), to: Math.max(at.x, GUTTER) };
      return ask();
    }
    const found = pick(at.x, at.y);
    if (found === null) hideCard(); else showCard(found, event.clientX, event.clientY);
  });
  chart.addEventListener('pointerup', (event) => {
    const was = pressed, at = position(event);
    pressed = null;
    if (range) {
      const [from, to] = [toTime(Math.min(range.from, range.to)), toTime(Math.max(range.from, range.to))];
      range = null;
      look(from, to);
    } else if (was && !was.moved) choose(pick(at.x, at.y));
  });
  const release = () => { pressed = range = null; ask(); };
  chart.addEventListener('pointercancel', release);
  chart.addEventListener('pointerleave', () => { if (!pressed) hideCard(); });
  chart.addEventListener('dblclick', () => look(0, span));
  chart.addEventListener('wheel', (event) => {
    if (event.shiftKey || event.ctrlKey && event.deltaY === 0) return;
    if (Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      return pan(event.deltaX * perPixel());
    }
    // At the whole run the page scrolls on.
    if (event.deltaY > 0 && isWhole()) return;
    event.preventDefault();
    hideCard();
    zoom(Math.exp(Math.max(Math.min(event.deltaY, 200), -200) / 300), toTime(Math.max(position(event).x, GUTTER)));
  }, { passive: false });

  // ---- The keyboard

  const KEYS = {
    ArrowRight: () => step(1), ArrowLeft: () => step(-1), ArrowDown: () => stepRow(1), ArrowUp: () => stepRow(-1),
    Home: () => chooseFirst(false), End: () => chooseFirst(true),
    PageDown: () => pan((view.to - view.from) / 2), PageUp: () => pan((view.from - view.to) / 2),
    '+': () => zoom(0.5, centre()), '=': () => zoom(0.5, centre()), '-': () => zoom(2, centre()), 0: () => look(0, span),
    Enter: () => chosen !== null && showRow(chosen), Escape: () => { release(); choose(null); },
  };
  // Zooming goes to the chosen bar, if it is in sight.
  const centre = () => {
    const bar = chosen === null ? null : bars[chosen];
    const middle = bar && hasRun(bar) ? bar[START] + bar[RAN] / 2 : NaN;
    return middle >= view.from && middle <= view.to ? middle : (view.from + view.to) / 2;
  };
  chart.addEventListener('keydown', (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || !Object.hasOwn(KEYS, event.key)) return;
    event.preventDefault();
    KEYS[event.key]();
  });
  chart.addEventListener('blur', hideCard);
  by('nearer').addEventListener('click', () => zoom(0.5, centre()));
  by('farther').addEventListener('click', () => zoom(2, centre()));
  by('whole').addEventListener('click', () => look(0, span));
  document.addEventListener('keydown', (event) => { if (event.key === 'Escape') hideCard(); });

  // ---- The table

  const PAGE = 100;
  const processor = (bar) => (bar[USER] === null ? null : bar[USER] + bar[SYSTEM]);
  const COLUMNS = [
    { name: 'Task', value: label },
    { name: 'Status', value: status },
    { name: 'Duration', value: (bar) => (hasRun(bar) ? bar[RAN] : null), words: duration },
    { name: 'Start', value: (bar) => (hasRun(bar) ? bar[START] : null), words: moment },
    { name: 'Waited', value: (bar) => bar[WAITED], words: duration },
    { name: 'Processor', value: processor, words: duration },
    { name: 'Memory', value: (bar) => bar[MEMORY], words: bytes },
    { name: 'Attempt', value: (bar) => bar[ATTEMPT], words: String },
    { name: 'Slot', value: (bar) => (hasRun(bar) ? data.slots[bar[ROW]] : null), words: String },
    { name: 'Place', value: place },
  ];
  let order = [], shown = 0, sorting = { column: COLUMNS[2], descends: true };

  const sort = () => {
    const { column, descends } = sorting, sign = descends ? -1 : 1;
    const keys = bars.map(column.value);
    order = [...bars.keys()].filter((index) => matches === null || matches[index]);
    order.sort((one, other) => {
      const [a, b] = [keys[one], keys[other]];
      // What is not known comes last either way.
      if (a === null || b === null) return (a === null) - (b === null) || one - other;
      return (a < b ? -sign : a > b ? sign : 0) || one - other;
    });
    [...table.tHead.rows[0].cells].forEach((cell, at) => {
      if (COLUMNS[at] === column) cell.ariaSort = descends ? 'descending' : 'ascending'; else cell.removeAttribute('aria-sort');
    });
    table.tBodies[0].replaceChildren();
    shown = 0;
    showMore();
  };

  const rowOf = (index) => {
    const bar = bars[index], row = element('tr');
    row.dataset.bar = index;
    row.classList.toggle('chosen', index === chosen);
    for (const { name, value, words } of COLUMNS) {
      const known = value(bar);
      const cell = element('td', undefined, name === 'Task' ? 'task' : words ? 'number' : name.toLowerCase());
      if (name === 'Task' && hasRun(bar)) {
        const button = element('button', known);
        button.type = 'button';
        button.title = 'Show in the timeline';
        button.addEventListener('click', () => { chart.focus(); choose(index); });
        cell.append(button);
      } else {
        cell.textContent = known === null ? (name === 'Duration' ? 'never ran' : '–') : words ? words(known) : known;
      }
      row.append(cell);
    }
    return row;
  };

  const showMore = (count = PAGE) => {
    const next = order.slice(shown, shown + count);
    table.tBodies[0].append(...next.map(rowOf));
    shown += next.length;
    by('more').hidden = shown >= order.length;
    by('more').textContent = `Show more (${shown} of ${order.length} are shown)`;
  };

  // As many rows as it takes to see this one.
  const showRow = (index) => {
    const at = order.indexOf(index);
    if (at < 0) return;
    if (at >= shown) showMore(Math.min(at + 1 - shown, 2000));
    const row = table.tBodies[0].rows[at];
    if (!row) return;
    row.scrollIntoView({ block: 'center', behavior: calm.matches ? 'auto' : 'smooth' });
    row.querySelector('button').focus({ preventScroll: true });
  };

  const makeTable = () => {
    for (const column of COLUMNS) {
      const cell = element('th', undefined, column.words ? 'number' : ''), button = element('button', column.name);
      button.type = 'button';
      button.addEventListener('click', () => {
        const again = sorting.column === column;
        sorting = { column, descends: again ? !sorting.descends : Boolean(column.words) };
        sort();
      });
      cell.scope = 'col';
      cell.append(button);
      table.tHead.rows[0].append(cell);
    }
    table.hidden = false;
    by('more').addEventListener('click', () => showMore());
  };

  // ---- The search

  let texts = null;
  const search = () => {
    const wanted = by('search').value.trim().toLowerCase();
    texts ??= bars.map((bar) => [label(bar), command(bar), status(bar), data.words[bar[VERDICT]], place(bar)].join('\n').toLowerCase());
    matches = wanted === '' ? null : texts.map((text) => text.includes(wanted));
    sort();
    by('found').textContent = matches === null ? '' : `${order.length} of ${bars.length} match`;
    if (matches !== null && chosen !== null && !matches[chosen]) choose(null);
    ask();
  };
  let waiting = 0;
  by('search').addEventListener('input', () => {
    clearTimeout(waiting);
    waiting = setTimeout(search, bars.length > 5000 ? 150 : 0);
  });

  // ---- To work

  const ran = bars.filter(hasRun).length;
  chart.setAttribute('aria-label', `Timeline: ${ran} bars in ${rows.length} slots, ${duration(span)}`);
  if (data.start !== null) {
    by('started').querySelector('dd').textContent = new Date(data.start).toLocaleString();
    by('started').hidden = false;
  }
  readLooks();
  makeTable();
  sort();
  measure();
  stage.addEventListener('scroll', () => { hideCard(); ask(); });
  new ResizeObserver(measure).observe(stage);
  addEventListener('resize', measure);
  dark.addEventListener('change', () => { readLooks(); ask(); });
})();
