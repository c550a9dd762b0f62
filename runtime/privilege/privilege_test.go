package privilege

import (
	"reflect"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

func TestParseCaps(t *testing.T) {
	c, unknown := ParseCaps(&specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN", "CAP_NEW_THING"}, Ambient: []string{"CAP_NET_RAW"}})
	if !c.Known || c.Bounding != 1 || c.Ambient != 1<<13 || !reflect.DeepEqual(unknown, []string{"CAP_NEW_THING"}) {
		t.Errorf("%+v, %v", c, unknown)
	}
	if c, _ := ParseCaps(nil); c.Known {
		t.Error("no configuration is not an empty one")
	}
	if names := CapNames(); len(names) != 41 || names[0] != "CAP_CHOWN" || names[40] != "CAP_CHECKPOINT_RESTORE" {
		t.Error(names)
	}
}

func TestParseList(t *testing.T) {
	for text, want := range map[string][]uint64{"0-3,7": {0x8f}, "64": {0, 1}, " 1 , 3 ": {0xa}} {
		if got, err := ParseList(text); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "x", "3-1", "1-", "99999999"} {
		if got, err := ParseList(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestRlimitNames(t *testing.T) {
	if Rlimit("RLIMIT_NOFILE") != 7 || Rlimit("RLIMIT_X") != -1 {
		t.Error("numbers of limits")
	}
}
