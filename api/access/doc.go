// Package access decides who may do what over the API: which right each route needs, what a scoped socket lets its users
// do and see, and which mounts would hand the engine to a container. It only decides: no file, socket, clock or lock. The
// server asks it before a handler runs; what no line here names is refused.
package access
