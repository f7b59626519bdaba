// A viewer's offer on standard input, the answer on standard output, an H.264 stream (Annex B) in a loop at 30 frames a
// second: what webrtc.py measures msrecd against. Ends after so many seconds.
//
//	pion FILE SECONDS < offer.sdp > answer.sdp
package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"github.com/pion/webrtc/v4"
	"github.com/pion/webrtc/v4/pkg/media"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// frames cuts at access unit delimiters.
func frames(data []byte) [][]byte {
	var cut [][]byte
	delimiter := []byte{0, 0, 0, 1, 9}
	for at := bytes.Index(data, delimiter); at >= 0; {
		next := bytes.Index(data[at+5:], delimiter)
		if next < 0 {
			return append(cut, data[at:])
		}
		cut = append(cut, data[at:at+5+next])
		at += 5 + next
	}
	return cut
}

func main() {
	data, err := os.ReadFile(os.Args[1])
	check(err)
	seconds, err := strconv.ParseFloat(os.Args[2], 64)
	check(err)
	units := frames(data)
	offer, err := io.ReadAll(os.Stdin)
	check(err)
	time.AfterFunc(time.Duration(seconds*float64(time.Second)), func() { os.Exit(0) })
	track, err := webrtc.NewTrackLocalStaticSample(
		webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeH264}, "video", "bench")
	check(err)
	if len(offer) > 0 {
		connection, err := webrtc.NewPeerConnection(webrtc.Configuration{})
		check(err)
		sender, err := connection.AddTrack(track)
		check(err)
		go func() {
			buffer := make([]byte, 1500)
			for {
				if _, _, err := sender.Read(buffer); err != nil {
					return
				}
			}
		}()
		check(connection.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: string(offer)}))
		answer, err := connection.CreateAnswer(nil)
		check(err)
		gathered := webrtc.GatheringCompletePromise(connection)
		check(connection.SetLocalDescription(answer))
		<-gathered
		fmt.Print(connection.LocalDescription().SDP)
	}
	check(os.Stdout.Close())
	for number, ticker := 0, time.NewTicker(time.Second/30); ; number++ {
		<-ticker.C
		check(track.WriteSample(media.Sample{Data: units[number%len(units)], Duration: time.Second / 30}))
	}
}
