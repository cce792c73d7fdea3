'use strict';
// Shows what /api/v1/stream tells. Text goes into the page as text only.
const pageSize = 50, keep = 60, silence = 6000; // rows; points of a chart; ms without news
const $ = id => document.getElementById(id);
const rates = { tx: [], rx: [] };
let last = null, lastAt = 0, before = null, first = 0;

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
const rtt = m => m && m.rtt_seconds ? (m.rtt_seconds * 1000).toPrecision(3) + ' ms' : '–';
const peersOf = s => s.backend ? s.backend.peers : [];

function badge(text, cls) { put('state', text); $('state').className = 'badge ' + cls; }

function chart(id, total) {
  const list = rates[id];
  const top = Math.max(1000, ...list);
  const d = list.map((v, i) => `${i ? 'L' : 'M'}${(keep - list.length + i) * 100 / (keep - 1)} ${38 - v / top * 36}`).join('');
  const svg = $(id);
  svg.setAttribute('viewBox', '0 0 100 40');
  svg.setAttribute('preserveAspectRatio', 'none');
  if (!svg.firstChild) svg.append(document.createElementNS('http://www.w3.org/2000/svg', 'path'));
  svg.firstChild.setAttribute('d', d);
  put(id + 'rate', list.length ? `${bytes(list.at(-1))}/s` : '–');
  svg.setAttribute('aria-label', `${id === 'tx' ? 'Sent' : 'Received'} in the last two minutes: at most ${bytes(Math.max(0, ...list))} a second; ${bytes(total)} since the start`);
}

function measure(s, at) {
  const sum = { tx: 0, rx: 0 };
  for (const p of peersOf(s)) { sum.tx += p.tx_bytes; sum.rx += p.rx_bytes; }
  for (const id of ['tx', 'rx']) {
    if (before && at > before.at) {
      rates[id].push(Math.max(0, (sum[id] - before[id]) * 1000 / (at - before.at)));
      if (rates[id].length > keep) rates[id].shift();
    }
    chart(id, sum[id]);
  }
  before = { ...sum, at };
}

// picture draws a sign for each peer, in the table's order.
function picture(peers) {
  const svg = $('map'), cell = peers.length > 200 ? 18 : 28;
  const columns = Math.max(1, Math.floor(svg.clientWidth / cell));
  const height = Math.max(1, Math.ceil(peers.length / columns)) * cell;
  svg.setAttribute('viewBox', `0 0 ${columns * cell} ${height}`);
  svg.style.height = height + 'px';
  const count = {};
  while (svg.childNodes.length > peers.length) svg.lastChild.remove();
  peers.forEach((p, i) => {
    const [cls, sign, word] = kind(p);
    count[word] = (count[word] || 0) + 1;
    let t = svg.childNodes[i];
    if (!t) {
      t = document.createElementNS('http://www.w3.org/2000/svg', 'text');
      t.append('', document.createElementNS('http://www.w3.org/2000/svg', 'title'));
      svg.append(t);
    }
    const key = [p.subnet, cls, sign, columns, cell, rtt(p.probe)].join();
    if (t.dataset.key === key) return;
    t.dataset.key = key;
    t.setAttribute('class', cls);
    t.setAttribute('x', (i % columns + .5) * cell);
    t.setAttribute('y', (Math.floor(i / columns) + .5) * cell);
    t.firstChild.nodeValue = sign;
    t.lastChild.textContent = `${p.subnet}: ${word}, ${rtt(p.probe)}`;
  });
  svg.setAttribute('aria-label', peers.length ? Object.entries(count).map(([w, n]) => `${n} ${w}`).join(', ') : 'no peers');
}

function table() {
  if (!last) return;
  const find = $('find').value.trim(), faulty = $('faulty').checked;
  const peers = peersOf(last).filter(p => (!find || p.subnet.includes(find) || p.public_ip.includes(find)) && (!faulty || ['bad', 'warn'].includes(kind(p)[0])));
  first = Math.min(first, Math.max(0, Math.floor((peers.length - 1) / pageSize) * pageSize));
  const shown = peers.slice(first, first + pageSize);
  $('rows').replaceChildren(...shown.map(p => {
    const row = document.createElement('tr'), m = p.probe, [cls, sign, word] = kind(p);
    row.append(make('td', `${sign} ${word}`, cls), make('td', p.subnet), make('td', p.public_ip), make('td', rtt(m), 'n'),
      make('td', m ? Math.round(m.loss * 100) + ' %' : '–', 'n'), make('td', m && m.mtu ? m.mtu : '–', 'n'), make('td', bytes(p.tx_bytes), 'n'), make('td', bytes(p.rx_bytes), 'n'));
    return row;
  }));
  put('range', peers.length ? `${first + 1}–${first + shown.length} of ${peers.length}` : 'none');
  $('prev').disabled = first === 0;
  $('next').disabled = first + pageSize >= peers.length;
}

function clock() {
  if (!last) return;
  const now = Date.now(), l = last.lease, st = last.store;
  put('until', !l ? '' : l.reserved ? 'reserved, does not end' : `ends in ${duration((Date.parse(l.expires_at) - now) / 1000)} unless renewed`);
  put('since', st.since ? `for ${duration((now - Date.parse(st.since)) / 1000)}` : '');
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
  badge(!s.ready ? 'not ready' : bad ? `ready, ${bad} silent` : 'ready', !s.ready ? 'bad' : bad ? 'warn' : 'ok');
  $('missing').hidden = s.ready;
  $('missing').replaceChildren(...s.not_ready.map(t => make('li', t)));
  put('subnet', s.lease ? s.lease.subnet : '');
  document.title = `flannel ${s.lease ? s.lease.subnet : ''}${s.ready ? '' : ', not ready'}`;
  put('lease', s.lease ? s.lease.subnet : 'none yet');
  put('count', String(peers.length));
  put('answering', !peers.some(p => p.probe) ? 'not probed' : `${peers.filter(p => p.probe && !p.probe.silent && p.probe.since).length} answer, ${bad} silent`);
  put('store', `${s.store.api ? 'etcd v' + s.store.api + ' ' : ''}${s.store.reachable ? 'reachable' : 'not reachable'}`);
  $('store').className = 'big ' + (s.store.reachable ? '' : 'bad');
  put('path', b ? [b.type, b.datapath].filter(Boolean).join(' · ') : 'none yet');
  put('reason', `${b ? `MTU ${b.mtu}, ` : ''}${s.node.iface ? `${s.node.iface} ${s.node.public_ip}` : ''}`);
  $('path').title = b ? b.datapath_reason : '';
  measure(s, lastAt);
  picture(peers);
  table();
  const drops = b ? Object.entries(b.drops).sort((x, y) => y[1] - x[1] || x[0].localeCompare(y[0])) : [];
  $('drops').replaceChildren(...drops.flatMap(([k, n]) => [make('dt', k.replaceAll('_', ' ')), make('dd', n.toLocaleString(), n ? 'warn' : 'none')]));
  $('events').replaceChildren(...s.events.map(e => {
    const li = document.createElement('li');
    li.append(make('time', new Date(e.time).toLocaleTimeString()), e.text);
    return li;
  }));
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
for (const id of ['find', 'faulty']) $(id).addEventListener('input', () => { first = 0; table(); });
$('prev').addEventListener('click', () => { first -= pageSize; table(); });
$('next').addEventListener('click', () => { first += pageSize; table(); });
addEventListener('resize', () => last && picture(peersOf(last)));
setInterval(clock, 1000);
listen();
