// Command standin answers HTTP on the ports named as arguments, in place of a program that is not there.
//
// It has an answer to every path and method: 200 with a page, or what the file given by -answers says. A
// WebSocket handshake is taken on any path; what the client sends comes back. Where another copy of it has a port
// already, it waits for its turn, as a second program of the same container would have ports of its own.
package main

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"
)

// answers is what the image says of its own server.
type answers struct {
	// Page is what a browser is shown.
	Page string `json:"page"`
	// Statuses holds the exceptions from 200, by "PORT METHOD PATH".
	Statuses map[string]int `json:"statuses"`
	// Greetings holds the first message of a WebSocket, by port.
	Greetings map[string]string `json:"greetings"`
}

// longest message of a WebSocket that is sent back.
const longest = 1 << 20

func main() {
	log.SetFlags(0)
	file := flag.String("answers", "", "JSON file with page, statuses and greetings")
	flag.Parse()
	said, err := read(*file)
	if err != nil {
		log.Fatal(err)
	}
	failed := make(chan error)
	for _, port := range flag.Args() {
		go func(port string) {
			err := http.ListenAndServe(":"+port, said.on(port))
			for errors.Is(err, syscall.EADDRINUSE) {
				time.Sleep(time.Second)
				err = http.ListenAndServe(":"+port, said.on(port))
			}
			failed <- err
		}(port)
	}
	log.Fatal(<-failed)
}

func read(file string) (answers, error) {
	var said answers
	if file == "" {
		return said, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return said, err
	}
	return said, json.Unmarshal(text, &said)
}

func (said answers) on(port string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
			talk(w, r, said.Greetings[port])
			return
		}
		// A body that stays unread would cost the connection.
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if status := said.Statuses[port+" "+r.Method+" "+r.URL.RequestURI()]; status != 0 {
			w.WriteHeader(status)
		}
		fmt.Fprint(w, said.Page)
	})
}

// talk takes the handshake (RFC 6455 §4.2), says the greeting and sends back each message.
func talk(w http.ResponseWriter, r *http.Request, greeting string) {
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		http.Error(w, "no connection to take over", http.StatusInternalServerError)
		return
	}
	connection, both, err := hijacker.Hijack()
	if err != nil {
		return
	}
	defer connection.Close()
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Fprintf(both, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Accept: %s\r\n\r\n", base64.StdEncoding.EncodeToString(sum[:]))
	if greeting != "" {
		write(both.Writer, 0x81, []byte(greeting))
	}
	for both.Flush() == nil {
		head, message, err := next(both.Reader)
		if err != nil {
			return
		}
		switch head & 0x0f {
		case 0x8: // close
			write(both.Writer, 0x88, message)
			_ = both.Flush()
			return
		case 0x9: // ping
			head = head&0xf0 | 0xa
		case 0xa: // pong
			continue
		}
		write(both.Writer, head, message)
	}
}

// next reads one frame (RFC 6455 §5.2); those of a client are masked.
func next(from *bufio.Reader) (byte, []byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return 0, nil, err
	}
	size := uint64(head[1] & 0x7f)
	if extra := map[uint64]int{126: 2, 127: 8}[size]; extra != 0 {
		var long [8]byte
		if _, err := io.ReadFull(from, long[8-extra:]); err != nil {
			return 0, nil, err
		}
		size = binary.BigEndian.Uint64(long[:])
	}
	if size > longest || head[1]&0x80 == 0 {
		return 0, nil, errors.New("not a client's frame, or too long")
	}
	var mask [4]byte
	if _, err := io.ReadFull(from, mask[:]); err != nil {
		return 0, nil, err
	}
	message := make([]byte, size)
	_, err := io.ReadFull(from, message)
	for at := range message {
		message[at] ^= mask[at%4]
	}
	return head[0], message, err
}

func write(to *bufio.Writer, head byte, message []byte) {
	to.WriteByte(head)
	switch size := len(message); {
	case size < 126:
		to.WriteByte(byte(size))
	case size < 1<<16:
		to.Write([]byte{126, byte(size >> 8), byte(size)})
	default:
		to.WriteByte(127)
		_ = binary.Write(to, binary.BigEndian, uint64(size))
	}
	to.Write(message)
}
