package store

import (
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"
)

func TestCheckDatabase(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metadata.db")
	db, err := bolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		err := db.Update(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("b"))
			if err == nil {
				err = b.Put([]byte("key"), make([]byte, 100000))
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := checkDatabase(path); err != nil {
			t.Fatal("in use:", err)
		}
	}
	db.Close()
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := checkDatabase(path); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string][]byte{"empty": {}, "cut off": whole[:len(whole)/2], "zeros": make([]byte, len(whole)), "short": []byte("garbage")} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if checkDatabase(path) == nil {
			t.Error(name, "counts as whole")
		}
	}
	one := append([]byte(nil), whole...) // one description torn: the other one counts
	clear(one[:100])
	if err := os.WriteFile(path, one, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkDatabase(path); err != nil {
		t.Error(err)
	}
}
