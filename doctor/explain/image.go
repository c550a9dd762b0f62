package explain

import (
	"fmt"
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/plural"
)

func image(i *Image) Report {
	r := Report{Kind: "image", Name: i.Ref}
	if i.Local == nil {
		r.State = "not on this machine"
		if i.Guess {
			r.State += "; no container or network has this name or ID either"
		}
		r.Findings = []Finding{remote(i)}
		return r
	}
	img := i.Local
	r.ID = img.ID
	r.State = fmt.Sprintf("on this machine, for %s, used by %s", img.Platform, plural.Of(len(i.Users), "container"))
	if a := img.Platform.Architecture; a != "" && a != i.HostArch {
		r.Findings = append(r.Findings, find("image-other-platform", "it is for "+img.Platform.String()+" and this machine is "+i.HostArch+": its programs start only where an emulator is registered",
			"pull it for this machine: shoal pull --platform linux/"+i.HostArch+" "+i.Ref))
	}
	if len(i.Users) > 0 {
		names, running := make([]string, len(i.Users)), 0
		for n, u := range i.Users {
			names[n] = u.Name
			if u.Running {
				running++
				names[n] += " (running)"
			}
		}
		fix := "remove the containers first, or only the name: shoal rmi -f " + i.Ref
		if running > 0 {
			fix = "stop and remove the containers first"
		}
		r.Findings = append(r.Findings, find("image-in-use", "it cannot be removed while containers are made from it: "+strings.Join(names, ", "), fix))
	}
	if len(img.RepoTags) > 1 {
		r.Findings = append(r.Findings, find("image-several-names", "removing one name leaves it under the others: "+strings.Join(img.RepoTags, ", "), "shoal rmi with all of them frees its space"))
	}
	return r
}

// remote says why an image cannot be pulled.
func remote(i *Image) Finding {
	if i.RemoteFound {
		return find("image-missing", "the registry has it; it was not pulled yet", "shoal pull "+i.Ref)
	}
	if i.Remote == nil {
		return find("image-missing", "it is not on this machine, and no registry was asked", "shoal pull "+i.Ref)
	}
	text := i.Remote.Error()
	low := strings.ToLower(text)
	has := func(words ...string) bool {
		for _, w := range words {
			if strings.Contains(low, w) {
				return true
			}
		}
		return false
	}
	switch {
	case has("toomanyrequests", "too many requests", "rate limit"):
		return find("registry-rate-limit", "the registry takes no more requests from here for a while", "log in (shoal login), wait, or use a mirror (--registry-mirror)", text)
	case has("x509", "certificate"):
		return find("registry-certificate", "the registry's certificate is not trusted here", "put its CA into /etc/docker/certs.d/HOST/ca.crt; for a laboratory: --insecure-registry", text)
	case errs.Is(i.Remote, errs.Forbidden), has("unauthorized", "denied", "authentication required"):
		return find("image-denied", "the registry lets this user not see it; many say the same of names that do not exist", "check the name, then shoal login to that registry", text)
	case errs.Is(i.Remote, errs.NotFound), has("not found", "manifest unknown"):
		return find("image-not-found", "the registry has no such name or tag", "check the spelling and the tag", text)
	case errs.Is(i.Remote, errs.Unavailable), has("no such host", "connection refused", "timeout", "deadline", "unreachable", "lookup"):
		return find("registry-unreachable", "the registry cannot be reached from this machine", "check the name, DNS, proxy (HTTPS_PROXY of the daemon) and firewall; shoal doctor looks at this machine", text)
	}
	return find("pull-failed", "the registry could not be asked: "+text, "see the message")
}
