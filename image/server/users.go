package server

import (
	"bufio"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/shoalhq/shoal/lib/errs"
)

// Users are the names and passwords of a file as `htpasswd -B` writes it. The file is read again when it changes. A
// password is checked against its bcrypt hash, which is slow on purpose, once; later requests compare a keyed digest.
type Users struct {
	path string
	key  []byte

	mu     sync.Mutex
	read   time.Time // the file's time of change when it was read
	size   int64
	hashes map[string][]byte
	proven map[string][]byte // name → digest of the password that fitted
	slots  chan struct{}     // checks at once: each takes a core for some time
}

// nobody is compared with when the name is unknown, so that the time taken does not tell.
var nobody = sync.OnceValue(func() []byte {
	h, _ := bcrypt.GenerateFromPassword([]byte("nobody"), bcrypt.DefaultCost)
	return h
})

// ReadUsers opens the file.
func ReadUsers(path string) (*Users, error) {
	u := &Users{path: path, key: make([]byte, 32), proven: map[string][]byte{}, slots: make(chan struct{}, 2)}
	rand.Read(u.key)
	u.mu.Lock()
	defer u.mu.Unlock()
	return u, u.refresh()
}

// refresh reads the file if it changed; on error the users stay as they were.
func (u *Users) refresh() error {
	st, err := os.Stat(u.path)
	if err != nil {
		return errs.Wrap(err, "users of the registry")
	}
	if st.ModTime().Equal(u.read) && st.Size() == u.size {
		return nil
	}
	f, err := os.Open(u.path)
	if err != nil {
		return errs.Wrap(err, "users of the registry")
	}
	defer f.Close()
	hashes := map[string][]byte{}
	lines := bufio.NewScanner(f)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, hash, ok := strings.Cut(line, ":")
		if _, err := bcrypt.Cost([]byte(hash)); !ok || err != nil {
			return errs.New(errs.Invalid, "%s: line %d is not NAME:BCRYPT-HASH; make it with `htpasswd -B`", u.path, n)
		}
		hashes[name] = []byte(hash)
	}
	if err := lines.Err(); err != nil {
		return errs.Wrap(err, "users of the registry: %s", u.path)
	}
	u.hashes, u.read, u.size = hashes, st.ModTime(), st.Size()
	clear(u.proven)
	return nil
}

func (u *Users) check(r *http.Request) bool {
	name, password, ok := r.BasicAuth()
	if !ok {
		return false
	}
	mac := hmac.New(sha256.New, u.key)
	mac.Write([]byte(password))
	sum := mac.Sum(nil)
	u.mu.Lock()
	u.refresh()
	hash, known := u.hashes[name]
	proven := u.proven[name]
	u.mu.Unlock()
	if known && proven != nil && hmac.Equal(proven, sum) {
		return true
	}
	if !known {
		hash = nobody()
	}
	select {
	case u.slots <- struct{}{}:
		defer func() { <-u.slots }()
	case <-r.Context().Done():
		return false
	}
	if bcrypt.CompareHashAndPassword(hash, []byte(password)) != nil || !known {
		return false
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if string(u.hashes[name]) == string(hash) {
		u.proven[name] = sum
	}
	return true
}
