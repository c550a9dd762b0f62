package build

import (
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// fullNames makes a list of image names, as users write them, the list of full names that the store has.
func fullNames(list string) (string, error) {
	if list == "" || list == "*" {
		return list, nil
	}
	var out []string
	for name := range strings.SplitSeq(list, ",") {
		ref, err := model.ParseReference(name)
		if err != nil {
			return "", err
		}
		if ref.Digest != "" {
			return "", errs.New(errs.Invalid, "cannot give the name %q: a digest belongs to content and cannot be chosen; use name:tag", name)
		}
		out = append(out, ref.String())
	}
	return strings.Join(out, ","), nil
}
