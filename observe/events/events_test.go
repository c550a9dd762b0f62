package events

import (
	"strconv"
	"testing"
	"time"

	"github.com/shoalhq/shoal/model"
)

func TestPastAndLiveMeetWithoutGap(t *testing.T) {
	at := time.Unix(100, 0)
	b := New(func() time.Time { return at })
	for i := range Kept + 10 {
		b.Publish(model.Event{ID: strconv.Itoa(i)})
	}
	past, sub := b.Subscribe(time.Unix(1, 0))
	defer sub.Close()
	if len(past) != Kept || past[0].ID != "10" || past[Kept-1].ID != strconv.Itoa(Kept+9) {
		t.Fatalf("%d past events, first %q last %q", len(past), past[0].ID, past[len(past)-1].ID)
	}
	for i := 1; i < len(past); i++ {
		if !past[i].Time.After(past[i-1].Time) {
			t.Fatal("stamps repeat")
		}
	}
	b.Publish(model.Event{ID: "live"})
	<-sub.Ready()
	if got, lost := sub.Take(); len(got) != 1 || got[0].ID != "live" || lost != 0 {
		t.Fatal(got, lost)
	}
	if again, _ := b.Subscribe(past[Kept-1].Time.Add(1)); len(again) != 1 {
		t.Fatalf("since after the last past event gives %d", len(again))
	}
}

func TestSlowSubscriberLosesAndIsTold(t *testing.T) {
	b := New(time.Now)
	_, sub := b.Subscribe(time.Time{})
	for range queueLimit + 3 {
		b.Publish(model.Event{})
	}
	if got, lost := sub.Take(); len(got) != queueLimit || lost != 3 {
		t.Fatal(len(got), lost)
	}
	sub.Close()
	b.Publish(model.Event{})
	if got, _ := sub.Take(); len(got) != 0 {
		t.Fatal("event after Close")
	}
}
