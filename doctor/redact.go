package doctor

import (
	"regexp"
	"strings"
	"sync"
)

const removed = "(removed)"

// patterns are what secrets look like.
type patterns struct {
	// secretName is a name whose value is secret, secretPair such a name with its value within a text, flag and flagPair the
	// same of command lines.
	secretName, secretPair, flag, flagPair *regexp.Regexp
	userinfo, pemBlock                     *regexp.Regexp
	// tokens are forms that only secrets have: JSON web tokens, keys of clouds and code hosts.
	tokens *regexp.Regexp
	// random is a long word of mixed letters and digits. Digests and IDs are of hexadecimal digits only.
	random, hexOnly *regexp.Regexp
}

// secrets compiles the patterns when they are first needed: that takes 0.2 ms, which every start of the command line would pay.
var secrets = sync.OnceValue(func() *patterns {
	return &patterns{
		secretName: regexp.MustCompile(`(?i)(pass(word|wd|phrase|code)?$|secret|token|credential|api[-_.]?key|access[-_.]?key|private[-_.]?key|signing[-_.]?key|auth$|authorization|cookie|dsn$)`),
		secretPair: regexp.MustCompile(`(?i)([a-z0-9_.-]*(?:password|passwd|passphrase|pwd|secret|token|credential|api[-_.]?key|access[-_.]?key|private[-_.]?key|authorization)[a-z0-9_.-]*["']?\s*[=:]\s*)(?:bearer\s+|basic\s+)?("[^"]*"|'[^']*'|[^\s,;&"']+)`),
		flagPair:   regexp.MustCompile(`(?i)(--?[a-z0-9-]*(?:password|passwd|passphrase|secret|token|api-?key|credential)[a-z0-9-]*\s+)(\S+)`),
		userinfo:   regexp.MustCompile(`([a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s@:]*:[^/\s@]*@`),
		pemBlock:   regexp.MustCompile(`(?s)-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(-----END [A-Z ]*PRIVATE KEY-----|$)`),
		tokens:     regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]*|\b(AKIA|ASIA)[A-Z0-9]{16}\b|\bgh[pousr]_[A-Za-z0-9]{20,}|\bglpat-[A-Za-z0-9_-]{16,}|\bxox[abprs]-[A-Za-z0-9-]{10,}|\bsk-[A-Za-z0-9_-]{20,}`),
		random:     regexp.MustCompile(`^[A-Za-z0-9+/_=-]{24,}$`),
		hexOnly:    regexp.MustCompile(`^[0-9a-f]+$`),
		flag:       regexp.MustCompile(`(?i)^--?[a-z0-9-]*(pass|password|passwd|secret|token|api-?key|credential)[a-z0-9-]*$`),
	}
})

// Redact takes secrets out of a decoded JSON document, for giving it to others: values of environments, of names that
// sound secret, of labels and options that look so, passwords in URLs and command lines, keys. Names stay. It is careful
// rather than exact: what remains should still be read before it is published.
func Redact(v any) any { return redact("", v) }

func redact(name string, v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for k, x := range v {
			switch s, text := x.(string); {
			case text && s != "" && secrets().secretName.MatchString(k):
				out[k] = removed
			case text && (name == "Labels" || name == "Annotations" || name == "Attributes" || strings.Contains(name, "Opt") || name == "Config") && looksRandom(s):
				out[k] = removed
			default:
				out[k] = redact(k, x)
			}
		}
		return out
	case []any:
		out := make([]any, len(v))
		hide := false // the element before was a flag that takes a secret
		for i, x := range v {
			s, text := x.(string)
			switch {
			case text && (name == "Env" || name == "env"):
				key, _, _ := strings.Cut(s, "=")
				out[i] = key + "=" + removed
			case text && hide:
				out[i] = removed
			default:
				out[i] = redact("", x)
			}
			hide = text && secrets().flag.MatchString(s)
		}
		return out
	case string:
		return RedactText(v)
	}
	return v
}

// RedactText takes secrets out of a text.
func RedactText(s string) string {
	s = secrets().pemBlock.ReplaceAllString(s, removed)
	s = secrets().userinfo.ReplaceAllString(s, "${1}"+removed+"@")
	s = secrets().flagPair.ReplaceAllString(s, "${1}"+removed)
	s = secrets().secretPair.ReplaceAllString(s, "${1}"+removed)
	return secrets().tokens.ReplaceAllString(s, removed)
}

func looksRandom(s string) bool {
	return secrets().random.MatchString(s) && !secrets().hexOnly.MatchString(s) && strings.ContainsAny(s, "0123456789") && strings.ContainsAny(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ")
}
