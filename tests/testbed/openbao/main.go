// The program of OpenBao; go.mod says at which version, go.sum what all of it hashes to.
package main

import (
	"os"

	"github.com/openbao/openbao/command"
)

func main() { os.Exit(command.Run(os.Args[1:])) }
