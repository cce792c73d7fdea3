package e2e

import "testing"

// A daemon that needs a module which the kernel lacks does not start. Its error has the
// command that loads the module.
func TestMissingModules(t *testing.T) {
	for _, m := range []struct {
		module string
		uses   string // command that succeeds if the kernel has the module
		config string
		args   []string
		remedy string
	}{
		{"vxlan", "ip link add probe type vxlan id 1 dstport 4789", `{"Type": "vxlan"}`, nil, "modprobe vxlan"},
		{"wireguard", "ip link add probe type wireguard", `{"Type": "wireguard", "Datapath": "kernel"}`, nil, "modprobe wireguard"},
		{"nft_masq", "nft 'table ip probe { chain out { type nat hook postrouting priority srcnat; masquerade; }; }'", `{"Type": "udp"}`, []string{"-ip-masq"}, "modprobe -a nf_tables nft_chain_nat nft_masq"},
	} {
		t.Run(m.module, func(t *testing.T) {
			c := newCluster(t, "3")
			c.use(m.config)
			a := c.node("a")
			out, lacks := output(t, c.lab.Host("probe"), "sh", "-c", m.uses)
			d := a.launch(m.args...)
			if lacks == nil {
				d.ready()
				return
			}
			t.Logf("%s: %v: %s", m.uses, lacks, out)
			refuses(t, d, m.remedy)
		})
	}
}
