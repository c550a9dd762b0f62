package access

import "encoding/json"

// Detail says in short what a body asks for, of the requests that matter most when somebody asks later who did what: what
// a new container runs and what it gets of the host, and what is run in one. nil for others.
func Detail(pattern string, body []byte) map[string]any {
	switch pattern {
	case "POST /containers/create":
		var b struct {
			Image      string
			Cmd        any
			User       string
			HostConfig struct {
				Privileged                                bool
				Binds, CapAdd, SecurityOpt                []string
				Mounts                                    []struct{ Type, Source, Target string }
				NetworkMode, PidMode, UsernsMode, IpcMode string
				Devices                                   []struct{ PathOnHost string }
			}
		}
		if json.Unmarshal(body, &b) != nil {
			return nil
		}
		h := b.HostConfig
		d := map[string]any{"image": b.Image}
		put := func(key string, set bool, v any) {
			if set {
				d[key] = v
			}
		}
		put("cmd", b.Cmd != nil, b.Cmd)
		put("user", b.User != "", b.User)
		put("privileged", h.Privileged, true)
		put("binds", len(h.Binds) > 0, h.Binds)
		put("mounts", len(h.Mounts) > 0, h.Mounts)
		put("capAdd", len(h.CapAdd) > 0, h.CapAdd)
		put("securityOpt", len(h.SecurityOpt) > 0, h.SecurityOpt)
		put("devices", len(h.Devices) > 0, h.Devices)
		put("network", h.NetworkMode != "", h.NetworkMode)
		put("pid", h.PidMode != "", h.PidMode)
		put("ipc", h.IpcMode != "", h.IpcMode)
		put("userns", h.UsernsMode != "", h.UsernsMode)
		return d
	case "POST /containers/{name}/exec":
		var b struct {
			Cmd        []string
			User       string
			Privileged bool
		}
		if json.Unmarshal(body, &b) != nil {
			return nil
		}
		d := map[string]any{"cmd": b.Cmd}
		if b.User != "" {
			d["user"] = b.User
		}
		if b.Privileged {
			d["privileged"] = true
		}
		return d
	}
	return nil
}

// TellingQuery are the parameters that an audit log keeps: those that name things. Others may be secret (build arguments).
var TellingQuery = []string{"name", "fromImage", "fromSrc", "repo", "tag", "container", "signal", "t", "force", "v", "link", "path", "platform", "condition",
	"since", "until", "tail", "follow", "filters"}
