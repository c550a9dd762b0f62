package cli

import (
	"strconv"

	units "github.com/docker/go-units"
)

func human(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }
func plain(n int64) string { return strconv.FormatInt(n, 10) }

// orNA shows a number that is -1 when the engine did not count.
func orNA(n int64, show func(int64) string) string {
	if n == -1 {
		return "N/A"
	}
	return show(n)
}
