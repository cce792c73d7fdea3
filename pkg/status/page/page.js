'use strict';
// Shows what /api/v1/stream tells. Text goes into the page as text only, and
// what is the same as before is not touched.
const pageSize = 50, keep = 60, silence = 6000; // rows; points of a chart; ms without news
const roomy = 40; // up to so many peers, the picture has their names
const rates = { tx: [], rx: [] };
let last = null, lastAt = 0, before = null, first = 0;

const $ = id => document.getElementById(id);
const units = (n, base, names) => {
  let i = 0;
  while (n >= base && i < names.length - 1) { n /= base; i++; }
  return (i && n < 10 ? n.toFixed(1) : Math.round(n)) + ' ' + names[i];
};
const bytes = n => units(n, 1000, ['B', 'kB', 'MB', 'GB', 'TB']);
const duration = s => {
  s = Math.max(0, Math.floor(s));
  const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
  return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : m ? `${m} min ${s % 60} s` : `${s} s`;
};
const put = (id, text) => { if ($(id).textContent !== text) $(id).textContent = text; };
const make = (name, text, cls) => {
  const e = document.createElement(name);
  e.textContent = text;
  if (cls) e.className = cls;
  return e;
};
const svgOf = (name, parent) => parent.appendChild(document.createElementNS('http://www.w3.org/2000/svg', name));
const attr = (e, name, value) => { if (e.getAttribute(name) !== String(value)) e.setAttribute(name, value); };
// kind is the class, sign and word for the way to a peer.
const kind = p => {
  const m = p.probe;
  if (p.problem) return ['bad', '✕', p.problem];
  if (!m) return ['none', '○', 'not known'];
  if (m.silent) return ['bad', '✕', 'silent'];
  if (!m.since) return ['none', '○', 'not known'];
  if (m.loss > 0.05) return ['warn', '▲', 'loss'];
  if (m.rtt_seconds > 0.1) return ['warn', '▲', 'slow'];
  return ['ok', '●', 'answers'];
};
const rtt = m => { const t = m ? m.rtt_seconds * 1000 : 0; return !t ? '–' : (t < 1 ? t.toFixed(2) : t < 100 ? t.toPrecision(3) : Math.round(t)) + ' ms'; };
const peersOf = s => s.backend ? s.backend.peers : [];

function badge(text, cls) { put('state', text); $('state').className = 'badge ' + cls; }

function chart(id, total) {
  const list = rates[id], peak = Math.max(0, ...list), top = Math.max(1000, peak), svg = $(id);
  const points = list.map((v, i) => `${(i * 100 / Math.max(1, list.length - 1)).toFixed(2)} ${(38 - v / top * 36).toFixed(2)}`);
  if (!svg.firstChild) {
    svg.setAttribute('viewBox', '0 0 100 40');
    svg.setAttribute('preserveAspectRatio', 'none');
    svgOf('path', svg).setAttribute('class', 'area');
    svgOf('path', svg);
  }
  const drawn = points.length > 1;
  svg.firstChild.setAttribute('d', drawn ? `M0 40L${points.join('L')}L100 40Z` : '');
  svg.lastChild.setAttribute('d', drawn ? `M${points.join('L')}` : '');
  put(id + 'rate', list.length ? `${bytes(list.at(-1))}/s` : '–');
  put(id + 'peak', drawn ? `peak ${bytes(peak)}/s in ${duration(Math.round((list.length - 1) * 2))}` : '');
  attr(svg, 'aria-label', `${id === 'tx' ? 'Sent' : 'Received'}: at most ${bytes(peak)} a second in the last two minutes; ${bytes(total)} since the start`);
}

// measure goes by each peer: one that joins brings counters, and is no traffic.
function measure(s, at) {
  const sum = { tx: 0, rx: 0 }, moved = { tx: 0, rx: 0 }, seen = new Map();
  for (const p of peersOf(s)) {
    sum.tx += p.tx_bytes;
    sum.rx += p.rx_bytes;
    seen.set(p.subnet, p);
    const old = before && before.seen.get(p.subnet);
    if (!old) continue;
    moved.tx += Math.max(0, p.tx_bytes - old.tx_bytes);
    moved.rx += Math.max(0, p.rx_bytes - old.rx_bytes);
  }
  for (const id of ['tx', 'rx']) {
    if (before && at > before.at) {
      rates[id].push(moved[id] * 1000 / (at - before.at));
      if (rates[id].length > keep) rates[id].shift();
    }
    chart(id, sum[id]);
  }
  before = { seen, at };
}

// tone is how far away a peer that answers is.
const tone = p => { const t = p.probe ? p.probe.rtt_seconds : 0; return t < 0.001 ? 'near' : t < 0.01 ? 'mid' : 'far'; };
const drawn = []; // what the picture has, for each peer

// picture draws a tile for each peer, in the order of subnets: with its name
// where there is room, else a small square.
function picture(peers) {
  const svg = $('map'), wide = peers.length <= roomy, width = Math.max(120, svg.clientWidth);
  const columns = Math.max(1, Math.floor(width / (wide ? 150 : 18))), w = wide ? (width + 8) / columns : 18, h = wide ? 54 : 18;
  const height = Math.max(1, Math.ceil(peers.length / columns)) * h;
  attr(svg, 'viewBox', `0 0 ${width} ${height}`);
  if (svg.style.height !== height + 'px') svg.style.height = height + 'px';
  while (drawn.length > peers.length) drawn.pop().g.remove();
  const count = {};
  peers.forEach((p, i) => {
    const [cls, sign, word] = kind(p);
    count[word] = (count[word] || 0) + 1;
    let d = drawn[i];
    if (!d) {
      const g = svgOf('g', svg);
      d = drawn[i] = { g, rect: svgOf('rect', g), sign: svgOf('text', g), name: svgOf('text', g), fact: svgOf('text', g), title: svgOf('title', g) };
      d.sign.setAttribute('class', 'sign');
      d.fact.setAttribute('class', 'fact');
    }
    const x = i % columns * w, y = Math.floor(i / columns) * h, fact = cls === 'ok' || word === 'slow' ? rtt(p.probe) : word === 'loss' ? `${Math.round(p.probe.loss * 100)} % lost` : word;
    const key = `${p.subnet} ${cls} ${tone(p)} ${fact} ${x} ${y} ${w}`;
    if (d.key === key) return;
    d.key = key;
    attr(d.g, 'class', `${cls} ${wide ? 'tile' : cls === 'ok' ? tone(p) : ''}`);
    attr(d.g, 'transform', `translate(${x.toFixed(1)} ${y})`);
    for (const [name, value] of Object.entries({ x: .5, y: .5, rx: wide ? 6 : 3, width: (wide ? w - 8 : 14) - 1, height: (wide ? h - 8 : 14) - 1 })) attr(d.rect, name, value);
    d.sign.textContent = wide || cls !== 'ok' ? sign : '';
    attr(d.sign, 'x', wide ? 15 : 7);
    attr(d.sign, 'y', wide ? 19 : 11.5);
    d.name.textContent = wide ? p.subnet : '';
    d.fact.textContent = wide ? (fact.length > 18 ? fact.slice(0, 17) + '…' : fact) : '';
    attr(d.name, 'x', 26);
    attr(d.name, 'y', 19);
    attr(d.fact, 'x', 26);
    attr(d.fact, 'y', 36);
    d.title.textContent = `${p.subnet} at ${p.public_ip}: ${word}, ${rtt(p.probe)}`;
  });
  attr(svg, 'aria-label', peers.length ? Object.entries(count).map(([w, n]) => `${n} ${w}`).join(', ') + '. The table below has each peer.' : 'no peers');
}

const worst = ['bad', 'warn', 'none', 'ok'];
const orders = {
  subnet: null, // as they come
  state: (a, b) => worst.indexOf(kind(a)[0]) - worst.indexOf(kind(b)[0]),
  rtt: (a, b) => (b.probe ? b.probe.rtt_seconds : -1) - (a.probe ? a.probe.rtt_seconds : -1),
  loss: (a, b) => (b.probe ? b.probe.loss : -1) - (a.probe ? a.probe.loss : -1),
  tx: (a, b) => b.tx_bytes - a.tx_bytes,
  rx: (a, b) => b.rx_bytes - a.rx_bytes,
};
const names = ['State', 'Subnet', 'Public IP', 'RTT', 'Loss', 'MTU', 'Sent', 'Received'];

function addRow() {
  const row = document.createElement('tr');
  row.setAttribute('role', 'row');
  names.forEach((name, i) => {
    const cell = make('td', '', i > 2 ? 'n' : '');
    cell.setAttribute('role', 'cell');
    cell.dataset.name = name;
    row.append(cell);
  });
  $('rows').append(row);
  return row;
}

function table() {
  if (!last) return;
  const find = $('find').value.trim(), faulty = $('faulty').checked, order = orders[$('sort').value];
  let peers = peersOf(last).filter(p => (!find || p.subnet.includes(find) || p.public_ip.includes(find)) && (!faulty || ['bad', 'warn'].includes(kind(p)[0])));
  if (order) peers = peers.slice().sort(order);
  first = Math.min(first, Math.max(0, Math.floor((peers.length - 1) / pageSize) * pageSize));
  const shown = peers.slice(first, first + pageSize), rows = $('rows');
  while (rows.children.length > shown.length) rows.lastElementChild.remove();
  shown.forEach((p, i) => {
    const m = p.probe, [cls, sign, word] = kind(p), row = rows.children[i] || addRow();
    const texts = [`${sign} ${word}`, p.subnet, p.public_ip, rtt(m), m ? Math.round(m.loss * 100) + ' %' : '–', m && m.mtu ? m.mtu : '–', p.uncounted ? '–' : bytes(p.tx_bytes), p.uncounted ? '–' : bytes(p.rx_bytes)];
    texts.forEach((t, j) => { const cell = row.children[j]; if (cell.textContent !== String(t)) cell.textContent = t; });
    if (row.firstChild.className !== cls) row.firstChild.className = cls;
  });
  put('range', peers.length ? `${first + 1}–${first + shown.length} of ${peers.length}` : 'none');
  $('prev').disabled = first === 0;
  $('next').disabled = first + pageSize >= peers.length;
}

function drops(b) {
  const all = b ? Object.entries(b.drops).sort((x, y) => y[1] - x[1] || x[0].localeCompare(y[0])) : [];
  const some = all.filter(d => d[1]), none = all.filter(d => !d[1]).map(d => d[0].replaceAll('_', ' ')), key = some.join();
  if ($('drops').dataset.key !== key) {
    $('drops').dataset.key = key;
    $('drops').replaceChildren(...some.flatMap(([k, n]) => [make('dt', k.replaceAll('_', ' ')), make('dd', n.toLocaleString(), 'warn')]));
  }
  $('undropped').hidden = !none.length;
  const [summary, p] = $('undropped').children, text = some.length ? `none for ${none.length} other reason${none.length > 1 ? 's' : ''}` : `no packet, for any of ${none.length} reasons`;
  if (summary.textContent !== text) summary.textContent = text;
  if (p.textContent !== none.join(', ')) p.textContent = none.join(', ');
}

const onDay = new Intl.DateTimeFormat([], { timeStyle: 'medium' }), onOther = new Intl.DateTimeFormat([], { month: 'short', day: 'numeric', hour: 'numeric', minute: '2-digit' });
function events(list) {
  const key = list.length && list[0].time + list.length;
  if ($('events').dataset.key === String(key)) return;
  $('events').dataset.key = key;
  const today = new Date().toDateString();
  $('events').replaceChildren(...list.map(e => {
    const li = document.createElement('li'), at = new Date(e.time), time = make('time', (at.toDateString() === today ? onDay : onOther).format(at));
    time.dateTime = e.time;
    li.append(time, make('span', e.text));
    return li;
  }));
}

function clock() {
  if (!last) return;
  const now = Date.now(), l = last.lease, st = last.store;
  const left = l && !l.reserved ? (Date.parse(l.expires_at) - now) / 1000 : 0;
  put('lease', !l ? 'none yet' : l.reserved ? 'reserved' : left > 0 ? duration(left) : 'ended');
  put('until', !l ? '' : l.reserved ? 'does not end' : left > 0 ? 'to its end, unless renewed' : `${duration(-left)} ago, not renewed`);
  put('since', [st.api && `etcd v${st.api}`, st.since && `for ${duration((now - Date.parse(st.since)) / 1000)}`].filter(Boolean).join(', '));
  if (now - lastAt > silence) gone();
}

function gone() {
  $('gone').hidden = false;
  put('gone', `The daemon does not answer since ${lastAt ? new Date(lastAt).toLocaleTimeString() : 'this page was opened'}. What is below is what it said last. Trying again.`);
  badge('daemon gone', 'bad');
  document.querySelectorAll('main > section').forEach(s => s.classList.add('stale'));
}

function show(s) {
  const b = s.backend, peers = peersOf(s), bad = peers.filter(p => kind(p)[0] === 'bad').length;
  last = s;
  lastAt = Date.now();
  if (!$('gone').hidden) {
    $('gone').hidden = true;
    document.querySelectorAll('.stale').forEach(e => e.classList.remove('stale'));
  }
  badge(!s.ready ? 'not ready' : bad ? `ready, ${bad} of ${peers.length} peers not reached` : 'ready', !s.ready ? 'bad' : bad ? 'warn' : 'ok');
  $('missing').hidden = s.ready;
  if ($('missing').dataset.key !== s.not_ready.join('\n')) { // or it would be read aloud each time
    $('missing').dataset.key = s.not_ready.join('\n');
    $('missing').replaceChildren(...s.not_ready.map(t => make('li', t)));
  }
  put('subnet', s.lease ? s.lease.subnet : '');
  document.title = `flannel ${s.lease ? s.lease.subnet : ''}${s.ready ? '' : ', not ready'}`;
  put('host', s.node.public_ip || 'no address yet');
  put('iface', s.node.iface ? `interface ${s.node.iface}, MTU ${s.node.mtu}` : '');
  put('count', String(peers.length));
  put('answering', !peers.some(p => p.probe) ? 'not probed' : `${peers.filter(p => ['ok', 'warn'].includes(kind(p)[0])).length} answer, ${bad} do not`);
  put('store', s.store.reachable ? 'reachable' : 'not reachable');
  $('store').className = 'big ' + (s.store.reachable ? '' : 'bad');
  put('path', b ? [b.type, b.datapath].filter(Boolean).join(' · ') : 'none yet');
  put('mtu', b ? `MTU ${b.mtu} for containers` : '');
  $('path').title = b ? b.datapath_reason : '';
  measure(s, lastAt);
  picture(peers);
  table();
  drops(b);
  events(s.events);
  put('version', `Version ${s.version}, up ${duration(s.uptime_seconds)}`);
  clock();
}

let source;
function listen() { // a browser gives up after an answer of 503; this does not
  if (source) source.close();
  source = new EventSource('api/v1/stream');
  source.onmessage = e => show(JSON.parse(e.data));
  source.onerror = () => { gone(); source.close(); setTimeout(listen, 2000); };
}
for (const id of ['find', 'faulty', 'sort']) $(id).addEventListener('input', () => { first = 0; table(); });
$('prev').addEventListener('click', () => { first -= pageSize; table(); });
$('next').addEventListener('click', () => { first += pageSize; table(); });
addEventListener('resize', () => last && picture(peersOf(last)));
setInterval(clock, 1000);
listen();
