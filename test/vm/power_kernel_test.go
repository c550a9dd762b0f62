//go:build kernel

package vm

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shoalhq/shoal/test/vm/plan"
)

var (
	cuts = flag.Int("cuts", 0, "take the power away so many times while images, containers, volumes and networks are made, instead of the suites")
	seed = flag.Uint64("seed", 0, "of the moments of the cuts; 0: another each time")
)

// TestPowerCut kills the machine while two clients make and remove things, boots it again on the same disk, and finds
// everything that a client was told of: images (imported, loaded, built, pulled) run with their content, volumes hold what was
// synced into them, networks and containers are there, what was removed is gone, and what nobody was told of is whole
// or not there.
func TestPowerCut(t *testing.T) {
	if *cuts == 0 {
		t.Skip("asked for by -cuts")
	}
	need(t, needed...)
	kind := *onDisk
	if kind == "" {
		kind = "ext4"
	}
	need(t, "mkfs."+kind)
	root := filepath.Join(workDir(t), "power.img")
	defer os.Remove(root)
	if err := makeRoot(t, root, func(string) error { return nil }); err != nil {
		t.Fatal(err)
	}
	disk := Disk{File: filepath.Join(t.TempDir(), kind), Type: kind, At: "/data", Keep: true}
	if err := makeDisk(disk.File, kind, "4G", ""); err != nil {
		t.Fatal(err)
	}
	for *seed == 0 {
		*seed = rand.Uint64()
	}
	t.Logf("-seed %d", *seed)
	random := rand.New(rand.NewPCG(*seed, 0))
	told := map[string]string{} // what a client was told is there → its content
	for round := range *cuts + 1 {
		if !powerRound(t, root, disk, round, told, random) {
			break
		}
	}
}

// powerRound boots, checks what was told, and works until the power goes; the last round only checks.
func powerRound(t *testing.T, root string, disk Disk, round int, told map[string]string, random *rand.Rand) bool {
	var list strings.Builder
	for _, name := range slices.Sorted(maps.Keys(told)) {
		fmt.Fprintf(&list, "%s %s\n", name, told[name])
	}
	last := round == *cuts
	env := []string{"BIN=" + filepath.Join(repository(), "bin"), "TOLD=" + list.String(), fmt.Sprint("ROUND=", round), fmt.Sprint("LAST=", last)}
	m := Boot(t, Config{Name: fmt.Sprint("power-", round), Root: root, Disks: []Disk{disk}, Memory: 1536,
		Steps: []plan.Step{{Name: "power", Dir: "/", Seconds: 3000, Args: []string{"/bin/sh", "-c", powerWork}, Env: env}}})
	defer m.Kill()
	defer time.AfterFunc(40*time.Minute, m.Kill).Stop()
	left := 5 + random.IntN(14)
	var lines []string
	cut := make(chan struct{})
	for e := range m.Events {
		lines = append(lines, e.Line)
		f := strings.Fields(e.Line)
		switch {
		case len(f) == 3 && f[0] == "made":
			told[f[1]] = f[2]
		case len(f) == 2 && f[0] == "removing": // from now on it may be there or not
			delete(told, f[1])
		case len(f) == 2 && f[0] == "removed":
			told[f[1]] = "gone"
		case len(f) > 0 && f[0] == "WRONG" || e.Fail != "":
			t.Errorf("round %d: %s%s", round, e.Line, e.Fail)
		case e.Line == "checked" && last:
			t.Logf("round %d: all %d things that were told of are as told", round, len(told))
			return !t.Failed()
		default:
			continue
		}
		if left--; left == 0 && !last {
			time.AfterFunc(time.Duration(random.IntN(1500))*time.Millisecond, func() { close(cut); m.Kill() })
		}
	}
	select {
	case <-cut:
		t.Logf("round %d: cut; %d things were told of", round, len(told))
		return !t.Failed()
	default:
		t.Errorf("round %d: the guest ended by itself:\n%s\n%s", round, strings.Join(lines[max(0, len(lines)-40):], "\n"), m.Console())
		return false
	}
}

// powerWork runs in the guest. TOLD has lines of a name and what it must be: images and volumes with the checksum of their
// file, containers and networks with "there", or any of them "gone". Names end with the round, the worker and a number; what
// is older than the last round is removed, so that the rounds stay short.
const powerWork = `
export DOCKER_HOST=unix:///run/s.sock
shoal() { "$BIN/shoal" "$@"; }
sum() { sha256sum | cut -d' ' -f1; }
"$BIN/shoald" -H $DOCKER_HOST --data-root /data/shoal --exec-root /run/shoal --pidfile /run/s.pid --config-file /dev/null >/data/log 2>&1 &
for i in $(seq 600); do shoal version >/dev/null 2>&1 && break; sleep 0.1; done
shoal version >/dev/null || { echo "WRONG no daemon: $(tail -5 /data/log)"; exit 1; }
"$BIN/shoald" registry serve --listen 127.0.0.1:5000 --root /run/registry --anonymous >/run/registry.log 2>&1 &
image() { shoal run --rm --network none "$1" cat /f 2>&1 | sum; }
volume() { shoal run --rm --network none -v "$1":/v toolbox cat /v/f 2>&1 | sum; }
have=" $(shoal images --format '{{.Repository}}' | tr '\n' ' ') $(shoal ps -a --format '{{.Names}}' | tr '\n' ' ') $(shoal volume ls -q | tr '\n' ' ') $(shoal network ls --format '{{.Name}}' | tr '\n' ' ') "
printf '%s' "$TOLD" | while read -r name want; do
	case "$have" in *" $name "*) there=there;; *) there=gone;; esac
	case "$name $want" in
	*" gone") [ $there = gone ] || echo "WRONG $name was removed and is there";;
	container-*) [ $there = there ] && shoal inspect "$name" >/dev/null || echo "WRONG $name is $there";;
	network-*) [ $there = there ] && shoal network inspect "$name" >/dev/null || echo "WRONG $name is $there";;
	*image-*) got=$(image "$name"); [ "$got" = "$want" ] || echo "WRONG $name is $there and gives $got, want $want";;
	volume-*) got=$(volume "$name"); [ "$got" = "$want" ] || echo "WRONG $name is $there and gives $got, want $want";;
	esac
done
# What nobody was told of is whole, too.
for name in $(shoal images --format '{{.Repository}}' | grep image-); do
	case "$TOLD" in *"$name "*) ;; *) shoal run --rm --network none $name true || echo "WRONG $name does not run";; esac
done
on=$(shoal network ls --format '{{.Name}}' | grep ^network- | tail -1)
[ -z "$on" ] || shoal run --rm --network $on toolbox true || echo "WRONG $on gives no network"
printf '%s' "$TOLD" | grep '^container-.* there' | while read -r name want; do echo "removing $name"; done
for name in $(shoal ps -aq); do shoal inspect $name >/dev/null && shoal rm -f $name >/dev/null || echo "WRONG container $name cannot be removed"; done
printf '%s' "$TOLD" | grep -v ' gone$' | while read -r name want; do
	round=${name%-*-*}; [ ${round##*-} -lt $((ROUND-1)) ] || continue
	case "$name" in *image-*) do=rmi;; volume-*) do="volume rm";; network-*) do="network rm";; *) continue;; esac
	echo "removing $name"; shoal $do $name >/dev/null && echo "removed $name" || echo "WRONG $do $name"
done
grep -iE 'damaged|panic|corrupt' /data/log | grep -v 'damaged=0 ' | head -5 | sed 's/^/WRONG log: /'
echo checked
[ "$LAST" = true ] && exit
worker() {
	n=0
	while :; do
		n=$((n+1)); id=$ROUND-$1-$n; dir=/run/work-$1; rm -rf $dir; mkdir -p $dir
		dd if=/dev/urandom of=$dir/f bs=64k count=$((n % 40 + 1)) 2>/dev/null
		mkdir -p $dir/bin; cp /usr/bin/busybox $dir/bin/; for x in sh cat true cp sync mv; do ln -s busybox $dir/bin/$x; done
		is=$(sum <$dir/f)
		tar -C $dir -cf /run/$1.tar . && shoal import /run/$1.tar image-$id >/dev/null || { echo "WRONG import"; continue; }
		echo "made image-$id $is"
		shoal network create network-$id >/dev/null && echo "made network-$id there" || echo "WRONG network create"
		shoal create --name container-$id --network network-$id -v volume-$id:/v image-$id true >/dev/null && echo "made container-$id there" || echo "WRONG create"
		shoal run --rm --network none -v volume-$id:/v image-$id sh -c 'cp /f /v/f; sync' && echo "made volume-$id $is" || echo "WRONG write"
		if [ $1 = a ]; then
			printf 'FROM image-%s\nRUN cat /f /f >/g && mv /g /f\n' $id >$dir/Dockerfile
			said=$(shoal build -q -t built-image-$id $dir 2>&1) && echo "made built-image-$id $(cat $dir/f $dir/f | sum)" || echo "WRONG build: $said" | tr '\n' ' '; echo
		else
			it=127.0.0.1:5000/pulled-image-$id
			said=$(shoal import /run/$1.tar $it 2>&1 && shoal push -q $it 2>&1 && shoal rmi $it 2>&1 && shoal pull -q $it 2>&1) &&
				echo "made $it $is" || echo "WRONG pull: $said" | tr '\n' ' '; echo
		fi
		if [ $((n % 3)) = 0 ]; then
			old=$ROUND-$1-$((n-1))
			shoal save -o /run/$1.save image-$old || echo "WRONG save"
			echo "removing container-$old"; shoal rm container-$old >/dev/null && echo "removed container-$old" || echo "WRONG rm"
			echo "removing volume-$old"; shoal volume rm volume-$old >/dev/null && echo "removed volume-$old" || echo "WRONG volume rm"
			echo "removing network-$old"; shoal network rm network-$old >/dev/null && echo "removed network-$old" || echo "WRONG network rm"
			echo "removing image-$old"; shoal rmi image-$old >/dev/null && echo "removed image-$old" || echo "WRONG rmi"
			echo "removing image-$old"; shoal load -q -i /run/$1.save >/dev/null && echo "made image-$old $(sum </run/old-$1)" || echo "WRONG load"
		fi
		cp $dir/f /run/old-$1
	done
}
worker a & worker b & wait
`
