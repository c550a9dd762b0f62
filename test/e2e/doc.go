// Package e2e tries Shoal as its users do: the real daemon, the unmodified docker command line and our own, on the real
// kernel. It must not reach into rooms; what it cannot see from outside it does not test.
package e2e
