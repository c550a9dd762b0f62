package foreign

import "testing"

// FuzzCNIResult reads what CNI plug-ins print.
func FuzzCNIResult(f *testing.F) {
	f.Add([]byte(`{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/x"}],"ips":[{"interface":0,"address":"10.1.0.5/16","gateway":"10.1.0.1"}],"routes":[{"dst":"0.0.0.0/0"}],"dns":{"nameservers":["1.1.1.1"]}}`))
	f.Add([]byte(`{"ips":[{"interface":7,"address":"x"}]}`))
	f.Fuzz(func(_ *testing.T, b []byte) { readCNIResult(b, "eth0") })
}
