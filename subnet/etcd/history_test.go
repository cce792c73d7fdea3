package etcd

import "testing"

func TestHistory(t *testing.T) {
	a := func(cluster, member string, term uint64, rev int64) Answer { return Answer{cluster, member, term, rev} }
	for name, test := range map[string]struct {
		answers []Answer
		want    uint64 // histories
	}{
		"goes on":                               {[]Answer{a("1", "a", 2, 5), a("1", "a", 2, 5), a("1", "a", 2, 9)}, 1},
		"a member lags behind another":          {[]Answer{a("1", "b", 2, 5), a("1", "a", 2, 9), a("1", "b", 2, 7)}, 1},
		"a later term":                          {[]Answer{a("1", "a", 2, 5), a("1", "a", 3, 5)}, 2},
		"a later term, then a member lags":      {[]Answer{a("1", "b", 2, 5), a("1", "a", 3, 9), a("1", "b", 2, 5), a("1", "b", 3, 9)}, 2},
		"an earlier term":                       {[]Answer{a("1", "a", 3, 5), a("1", "a", 2, 9)}, 2},
		"an earlier revision":                   {[]Answer{a("1", "a", 2, 5), a("1", "a", 2, 4)}, 2},
		"an earlier revision at a new member":   {[]Answer{a("1", "a", 2, 5), a("1", "z", 2, 4)}, 2},
		"another cluster":                       {[]Answer{a("1", "a", 2, 5), a("2", "a", 2, 9)}, 2},
		"no headers but the revision":           {[]Answer{a("", "a", 0, 5), a("", "a", 0, 9), a("", "a", 0, 9)}, 1},
		"no ids, as from a proxy":               {[]Answer{a("1", "a", 2, 5), a("", "", 0, 3), a("1", "a", 2, 5)}, 1},
		"no revision, as in a watch's answer":   {[]Answer{a("1", "a", 2, 5), a("1", "a", 2, 0)}, 1},
		"another cluster, at the first's place": {[]Answer{a("1", "a", 9, 90), a("2", "a", 2, 9), a("2", "a", 2, 10)}, 2},
	} {
		var h History
		for _, answer := range test.answers {
			h.Observe(answer, h.Mark())
		}
		if got, _ := h.Number(); got != test.want {
			t.Errorf("%s: %d histories, want %d", name, got, test.want)
		}
	}
}

// An answer that a later one has overtaken is no earlier history.
func TestHistoryOvertaken(t *testing.T) {
	var h History
	sent := h.Mark()
	_, changed := h.Number()
	h.Observe(Answer{"1", "a", 2, 9}, h.Mark())
	h.Observe(Answer{"1", "a", 2, 8}, sent)
	if n, _ := h.Number(); n != 1 {
		t.Errorf("%d histories, want one", n)
	}
	select {
	case <-changed:
		t.Error("a change was reported")
	default:
	}
	h.Observe(Answer{"1", "a", 2, 8}, h.Mark())
	<-changed // otherwise the test hangs
}
