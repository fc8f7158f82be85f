//go:build tools

// Package tools names what build.sh builds, so that `go mod tidy` keeps it in go.mod.
package tools

import (
	_ "github.com/influxdata/influxdb/v2/cmd/influxd"
	_ "github.com/influxdata/pkg-config"
)
