'use strict';
// Shows the reports of /api/v1/stream. Text enters the page as text only, and an
// unchanged element is not touched.
const pageSize = 50, maxPoints = 60, staleAfter = 6000; // rows; points of a chart; ms without a report
const maxTiles = 40; // the map names the peers if there are at most so many
const rates = { tx: [], rx: [] };
let last = null, lastAt = 0, previous = null, firstRow = 0;

const $ = id => document.getElementById(id);
const formatUnits = (n, base, names) => {
  let i = 0;
  while (n >= base && i < names.length - 1) { n /= base; i++; }
  return (i && n < 10 ? n.toFixed(1) : Math.round(n)) + ' ' + names[i];
};
const formatBytes = n => formatUnits(n, 1000, ['B', 'kB', 'MB', 'GB', 'TB']);
const formatDuration = s => {
  s = Math.max(0, Math.floor(s));
  const d = Math.floor(s / 86400), h = Math.floor(s / 3600) % 24, m = Math.floor(s / 60) % 60;
  return d ? `${d} d ${h} h` : h ? `${h} h ${m} min` : m ? `${m} min ${s % 60} s` : `${s} s`;
};
const setText = (id, text) => { if ($(id).textContent !== text) $(id).textContent = text; };
const newElement = (name, text, cls) => {
  const e = document.createElement(name);
  e.textContent = text;
  if (cls) e.className = cls;
  return e;
};
const newSVG = (name, parent) => parent.appendChild(document.createElementNS('http://www.w3.org/2000/svg', name));
const setAttr = (e, name, value) => { if (e.getAttribute(name) !== String(value)) e.setAttribute(name, value); };
// peerStatus returns the class, sign and word for the path to a peer.
const peerStatus = p => {
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

function badge(text, cls) { setText('state', text); $('state').className = 'badge ' + cls; }

function chart(id, total) {
  const list = rates[id], peak = Math.max(0, ...list), top = Math.max(1000, peak), svg = $(id);
  const points = list.map((v, i) => `${(i * 100 / Math.max(1, list.length - 1)).toFixed(2)} ${(38 - v / top * 36).toFixed(2)}`);
  if (!svg.firstChild) {
    svg.setAttribute('viewBox', '0 0 100 40');
    svg.setAttribute('preserveAspectRatio', 'none');
    newSVG('path', svg).setAttribute('class', 'area');
    newSVG('path', svg);
  }
  const drawn = points.length > 1;
  svg.firstChild.setAttribute('d', drawn ? `M0 40L${points.join('L')}L100 40Z` : '');
  svg.lastChild.setAttribute('d', drawn ? `M${points.join('L')}` : '');
  setText(id + 'rate', list.length ? `${formatBytes(list.at(-1))}/s` : '–');
  setText(id + 'peak', drawn ? `peak ${formatBytes(peak)}/s in ${formatDuration(Math.round((list.length - 1) * 2))}` : '');
  setAttr(svg, 'aria-label', `${id === 'tx' ? 'Sent' : 'Received'}: at most ${formatBytes(peak)} a second in the last two minutes; ${formatBytes(total)} since the start`);
}

// updateRates compares counters peer by peer: the counters of a new peer are not traffic.
function updateRates(s, at) {
  const sum = { tx: 0, rx: 0 }, moved = { tx: 0, rx: 0 }, seen = new Map();
  for (const p of peersOf(s)) {
    sum.tx += p.tx_bytes;
    sum.rx += p.rx_bytes;
    seen.set(p.subnet, p);
    const old = previous && previous.seen.get(p.subnet);
    if (!old) continue;
    moved.tx += Math.max(0, p.tx_bytes - old.tx_bytes);
    moved.rx += Math.max(0, p.rx_bytes - old.rx_bytes);
  }
  for (const id of ['tx', 'rx']) {
    if (previous && at > previous.at) {
      rates[id].push(moved[id] * 1000 / (at - previous.at));
      if (rates[id].length > maxPoints) rates[id].shift();
    }
    chart(id, sum[id]);
  }
  previous = { seen, at };
}

// rttClass returns the class of the round trip to a peer that answers.
const rttClass = p => { const t = p.probe ? p.probe.rtt_seconds : 0; return t < 0.001 ? 'near' : t < 0.01 ? 'mid' : 'far'; };
const tiles = []; // the elements of the map, one entry for each peer

// drawMap draws a tile for each peer, in the order of subnets: with its name if
// there are at most maxTiles, else a small square.
function drawMap(peers) {
  const svg = $('map'), wide = peers.length <= maxTiles, width = Math.max(120, svg.clientWidth);
  const columns = Math.max(1, Math.floor(width / (wide ? 150 : 18))), w = wide ? (width + 8) / columns : 18, h = wide ? 54 : 18;
  const height = Math.max(1, Math.ceil(peers.length / columns)) * h;
  setAttr(svg, 'viewBox', `0 0 ${width} ${height}`);
  if (svg.style.height !== height + 'px') svg.style.height = height + 'px';
  while (tiles.length > peers.length) tiles.pop().g.remove();
  const count = {};
  peers.forEach((p, i) => {
    const [cls, sign, word] = peerStatus(p);
    count[word] = (count[word] || 0) + 1;
    let d = tiles[i];
    if (!d) {
      const g = newSVG('g', svg);
      d = tiles[i] = { g, rect: newSVG('rect', g), sign: newSVG('text', g), name: newSVG('text', g), fact: newSVG('text', g), title: newSVG('title', g) };
      d.sign.setAttribute('class', 'sign');
      d.fact.setAttribute('class', 'fact');
    }
    const x = i % columns * w, y = Math.floor(i / columns) * h, fact = cls === 'ok' || word === 'slow' ? rtt(p.probe) : word === 'loss' ? `${Math.round(p.probe.loss * 100)} % lost` : word;
    const key = `${p.subnet} ${cls} ${rttClass(p)} ${fact} ${x} ${y} ${w}`;
    if (d.key === key) return;
    d.key = key;
    setAttr(d.g, 'class', `${cls} ${wide ? 'tile' : cls === 'ok' ? rttClass(p) : ''}`);
    setAttr(d.g, 'transform', `translate(${x.toFixed(1)} ${y})`);
    for (const [name, value] of Object.entries({ x: .5, y: .5, rx: wide ? 6 : 3, width: (wide ? w - 8 : 14) - 1, height: (wide ? h - 8 : 14) - 1 })) setAttr(d.rect, name, value);
    d.sign.textContent = wide || cls !== 'ok' ? sign : '';
    setAttr(d.sign, 'x', wide ? 15 : 7);
    setAttr(d.sign, 'y', wide ? 19 : 11.5);
    d.name.textContent = wide ? p.subnet : '';
    d.fact.textContent = wide ? (fact.length > 18 ? fact.slice(0, 17) + '…' : fact) : '';
    setAttr(d.name, 'x', 26);
    setAttr(d.name, 'y', 19);
    setAttr(d.fact, 'x', 26);
    setAttr(d.fact, 'y', 36);
    d.title.textContent = `${p.subnet} at ${p.public_ip}: ${word}, ${rtt(p.probe)}`;
  });
  setAttr(svg, 'aria-label', peers.length ? Object.entries(count).map(([w, n]) => `${n} ${w}`).join(', ') + '. The table below has each peer.' : 'no peers');
}

const severity = ['bad', 'warn', 'none', 'ok'];
const comparators = {
  subnet: null, // the order of the report
  state: (a, b) => severity.indexOf(peerStatus(a)[0]) - severity.indexOf(peerStatus(b)[0]),
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
    const cell = newElement('td', '', i > 2 ? 'n' : '');
    cell.setAttribute('role', 'cell');
    cell.dataset.name = name;
    row.append(cell);
  });
  $('rows').append(row);
  return row;
}

function table() {
  if (!last) return;
  const find = $('find').value.trim(), faulty = $('faulty').checked, order = comparators[$('sort').value];
  let peers = peersOf(last).filter(p => (!find || p.subnet.includes(find) || p.public_ip.includes(find)) && (!faulty || ['bad', 'warn'].includes(peerStatus(p)[0])));
  if (order) peers = peers.slice().sort(order);
  firstRow = Math.min(firstRow, Math.max(0, Math.floor((peers.length - 1) / pageSize) * pageSize));
  const shown = peers.slice(firstRow, firstRow + pageSize), rows = $('rows');
  while (rows.children.length > shown.length) rows.lastElementChild.remove();
  shown.forEach((p, i) => {
    const m = p.probe, [cls, sign, word] = peerStatus(p), row = rows.children[i] || addRow();
    const texts = [`${sign} ${word}`, p.subnet, p.public_ip, rtt(m), m ? Math.round(m.loss * 100) + ' %' : '–', m && m.mtu ? m.mtu : '–', p.uncounted ? '–' : formatBytes(p.tx_bytes), p.uncounted ? '–' : formatBytes(p.rx_bytes)];
    texts.forEach((t, j) => { const cell = row.children[j]; if (cell.textContent !== String(t)) cell.textContent = t; });
    if (row.firstChild.className !== cls) row.firstChild.className = cls;
  });
  setText('range', peers.length ? `${firstRow + 1}–${firstRow + shown.length} of ${peers.length}` : 'none');
  $('prev').disabled = firstRow === 0;
  $('next').disabled = firstRow + pageSize >= peers.length;
}

function drops(b) {
  const all = b ? Object.entries(b.drops).sort((x, y) => y[1] - x[1] || x[0].localeCompare(y[0])) : [];
  const some = all.filter(d => d[1]), none = all.filter(d => !d[1]).map(d => d[0].replaceAll('_', ' ')), key = some.join();
  if ($('drops').dataset.key !== key) {
    $('drops').dataset.key = key;
    $('drops').replaceChildren(...some.flatMap(([k, n]) => [newElement('dt', k.replaceAll('_', ' ')), newElement('dd', n.toLocaleString(), 'warn')]));
  }
  $('undropped').hidden = !none.length;
  const [summary, p] = $('undropped').children, text = some.length ? `none for ${none.length} other reason${none.length > 1 ? 's' : ''}` : `no packet, for any of ${none.length} reasons`;
  if (summary.textContent !== text) summary.textContent = text;
  if (p.textContent !== none.join(', ')) p.textContent = none.join(', ');
}

const timeOfDay = new Intl.DateTimeFormat([], { timeStyle: 'medium' }), dayAndTime = new Intl.DateTimeFormat([], { month: 'short', day: 'numeric', hour: 'numeric', minute: '2-digit' });
function events(list) {
  const key = list.length && list[0].time + list.length;
  if ($('events').dataset.key === String(key)) return;
  $('events').dataset.key = key;
  const today = new Date().toDateString();
  $('events').replaceChildren(...list.map(e => {
    const li = document.createElement('li'), at = new Date(e.time), time = newElement('time', (at.toDateString() === today ? timeOfDay : dayAndTime).format(at));
    time.dateTime = e.time;
    li.append(time, newElement('span', e.text));
    return li;
  }));
}

function updateTimes() {
  if (!last) return;
  const now = Date.now(), l = last.lease, st = last.store;
  const left = l && l.expires_at ? (Date.parse(l.expires_at) - now) / 1000 : 0;
  setText('lease', !l ? 'none yet' : l.reserved ? 'reserved' : !l.expires_at ? 'held' : left > 0 ? formatDuration(left) : 'ended');
  setText('until', !l ? '' : !l.expires_at ? 'no expiry' : left > 0 ? 'left, unless renewed' : `${formatDuration(-left)} ago, not renewed`);
  setText('since', [st.api && `etcd v${st.api}`, st.since && `for ${formatDuration((now - Date.parse(st.since)) / 1000)}`].filter(Boolean).join(', '));
  if (now - lastAt > staleAfter) showLost();
}

function showLost() {
  $('gone').hidden = false;
  setText('gone', `The daemon has not answered since ${lastAt ? new Date(lastAt).toLocaleTimeString() : 'this page was opened'}. The page shows its last report. Trying again.`);
  badge('daemon not answering', 'bad');
  document.querySelectorAll('main > section').forEach(s => s.classList.add('stale'));
}

function show(s) {
  const b = s.backend, peers = peersOf(s), bad = peers.filter(p => peerStatus(p)[0] === 'bad').length;
  last = s;
  lastAt = Date.now();
  if (!$('gone').hidden) {
    $('gone').hidden = true;
    document.querySelectorAll('.stale').forEach(e => e.classList.remove('stale'));
  }
  badge(!s.ready ? 'not ready' : bad ? `ready, ${bad} of ${peers.length} peers not reached` : 'ready', !s.ready ? 'bad' : bad ? 'warn' : 'ok');
  const missing = [...s.not_ready, ...(s.family_problems || []), ...(s.losses || [])];
  $('missing').hidden = missing.length === 0;
  if ($('missing').dataset.key !== missing.join('\n')) { // a screen reader reads each change aloud
    $('missing').dataset.key = missing.join('\n');
    $('missing').replaceChildren(...missing.map(t => newElement('li', t)));
  }
  const subnets = s.lease ? [s.lease.subnet, s.lease.ipv6_subnet].filter(Boolean).join(', ') : '';
  setText('subnet', subnets);
  document.title = `flannel ${subnets}${s.ready ? '' : ', not ready'}`;
  setText('host', [s.node.public_ip, s.node.public_ipv6].filter(Boolean).join(', ') || 'no address yet');
  setText('iface', [[s.node.iface, s.node.mtu], [s.node.ipv6_iface, s.node.ipv6_mtu]]
    .filter(([name]) => name).map(([name, mtu]) => `interface ${name}, MTU ${mtu}`)
    .filter((text, i, all) => all.indexOf(text) === i).join('; '));
  setText('count', String(peers.length));
  setText('answering', !peers.some(p => p.probe) ? 'not probed' : `${peers.filter(p => ['ok', 'warn'].includes(peerStatus(p)[0])).length} answer, ${bad} do not`);
  setText('store', s.store.reachable ? 'reachable' : 'not reachable');
  $('store').className = 'big ' + (s.store.reachable ? '' : 'bad');
  setText('path', b ? [b.type, b.datapath].filter(Boolean).join(' · ') : 'none yet');
  setText('mtu', b ? `MTU ${b.mtu} for containers` : '');
  $('path').title = b ? b.datapath_reason : '';
  updateRates(s, lastAt);
  drawMap(peers);
  table();
  drops(b);
  events(s.events);
  setText('version', `Version ${s.version}, up ${formatDuration(s.uptime_seconds)}`);
  updateTimes();
}

let source;
function connect() { // an EventSource ends after an answer of 503; this retries
  if (source) source.close();
  source = new EventSource('api/v1/stream');
  source.onmessage = e => show(JSON.parse(e.data));
  source.onerror = () => { showLost(); source.close(); setTimeout(connect, 2000); };
}
for (const id of ['find', 'faulty', 'sort']) $(id).addEventListener('input', () => { firstRow = 0; table(); });
$('prev').addEventListener('click', () => { firstRow -= pageSize; table(); });
$('next').addEventListener('click', () => { firstRow += pageSize; table(); });
addEventListener('resize', () => last && drawMap(peersOf(last)));
setInterval(updateTimes, 1000);
connect();
