// Command coredns is CoreDNS with the plugins that the sandbox cluster's Corefile names and no others.
//
// Upstream's own command links some fifty plugins, most of them clients of clouds; leaving them out makes the
// build several times shorter and changes nothing that a pod could see.
package main

import (
	"github.com/coredns/coredns/coremain"

	_ "github.com/coredns/coredns/plugin/cache"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/health"
	_ "github.com/coredns/coredns/plugin/kubernetes"
	_ "github.com/coredns/coredns/plugin/ready"
	_ "github.com/coredns/coredns/plugin/template"
)

func main() {
	coremain.Run()
}
