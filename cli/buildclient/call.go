package buildclient

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"

	bkclient "github.com/moby/buildkit/client"
	gateway "github.com/moby/buildkit/frontend/gateway/client"
	"github.com/moby/buildkit/frontend/subrequests/lint"
	"github.com/moby/buildkit/frontend/subrequests/outline"
	"github.com/moby/buildkit/frontend/subrequests/targets"
	"github.com/moby/buildkit/util/progress/progressui"

	"github.com/shoalhq/shoal/cli/buildflags"
	"github.com/shoalhq/shoal/lib/errs"
)

// calls are what a front end can be asked instead of to build, and how its answer, JSON, is written for people.
var calls = map[string]struct {
	request string
	print   func(answer []byte, w io.Writer) error
}{
	"check":   {lint.RequestLint, func(answer []byte, w io.Writer) error { return lint.PrintLintViolations(answer, w, nil) }},
	"outline": {outline.RequestSubrequestsOutline, outline.PrintOutline},
	"targets": {targets.RequestTargets, targets.PrintTargets},
}

// errFound is the end of checks that found something; the findings are written already.
var errFound = errs.New(errs.Invalid, "the checks found something to change")

// callOf reads --call and --check: the method, "" to build, and whether the answer is wanted as JSON.
func callOf(out buildflags.Output) (method string, asJSON bool, err error) {
	method, format, _ := strings.Cut(out.Call, ",")
	switch {
	case out.Check && method != "build" && method != "check":
		return "", false, errs.New(errs.Invalid, "--check and --call %s cannot be given together", out.Call)
	case out.Check:
		method = "check"
	case method == "lint":
		method = "check"
	case method == "build" && format == "":
		return "", false, nil
	}
	if _, known := calls[method]; !known || format != "" && format != "format=json" && format != "format=text" {
		return "", false, errs.New(errs.Invalid, "--call %q: want build, check, outline or targets, each but the first also with \",format=json\"", out.Call)
	}
	return method, format == "format=json", nil
}

// call asks the front end and writes its answer.
func call(ctx context.Context, bk *bkclient.Client, opt *bkclient.SolveOpt, method string, asJSON bool, progress string) error {
	attrs := maps.Clone(opt.FrontendAttrs)
	attrs["requestid"], attrs["frontend.caps"] = calls[method].request, "moby.buildkit.frontend.subrequests+forward"
	opt.Exports, opt.CacheExports = nil, nil
	var answer []byte
	ask := func(ctx context.Context, c gateway.Client) (*gateway.Result, error) {
		res, err := c.Solve(ctx, gateway.SolveRequest{Frontend: opt.Frontend, FrontendOpt: attrs, CacheImports: nil})
		if err == nil {
			answer = res.Metadata["result.json"]
		}
		return res, err
	}
	mode := progressui.DisplayMode(progress)
	if mode == progressui.AutoMode {
		mode = progressui.QuietMode // an answer and not a build is wanted
	}
	if _, err := show(ctx, mode, func(ctx context.Context, status chan *bkclient.SolveStatus) error {
		_, err := bk.Build(ctx, *opt, "", ask, status)
		return err
	}); err != nil {
		return err
	}
	if len(answer) == 0 {
		return errs.New(errs.Unsupported, "the front end that this Dockerfile asks for with \"# syntax=\" gives no answer to --call %s", method)
	}
	if asJSON {
		fmt.Println(string(answer))
	} else if err := calls[method].print(answer, os.Stdout); err != nil {
		return err
	}
	if method != "check" {
		return nil
	}
	var found lint.LintResults
	if err := json.Unmarshal(answer, &found); err != nil {
		return err
	}
	if found.Error != nil || len(found.Warnings) > 0 {
		return errFound
	}
	if !asJSON {
		fmt.Println("Check complete, no warnings found.")
	}
	return nil
}
