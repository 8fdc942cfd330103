package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"time"
)

// A mail goes out after the call that causes it has answered.
const mailWait = 15 * time.Second

var mailedToken = regexp.MustCompile(`\bentl_[\w-]+`)

// The mails with links in a server's data folder: without another transport the server writes each into a file.
type mails struct {
	folder string
	used   map[string]bool
}

func mailsIn(data string) *mails {
	return &mails{folder: filepath.Join(data, "mails"), used: map[string]bool{}}
}

// tokenFor gives the token of the newest mail to an address, which is used once; it waits for a mail that isn't there yet.
func (m *mails) tokenFor(ctx context.Context, address string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, mailWait)
	defer cancel()
	for {
		files, err := filepath.Glob(filepath.Join(m.folder, "*.eml"))
		if err != nil {
			return "", err
		}
		// The files' names are UUIDv7s, which begin with the time.
		sort.Sort(sort.Reverse(sort.StringSlice(files)))
		for _, file := range files {
			if m.used[file] {
				continue
			}
			token, err := tokenIn(file, address)
			if err != nil {
				return "", fmt.Errorf("%s: %w", file, err)
			}
			if token != "" {
				m.used[file] = true
				return token, nil
			}
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("no mail with a token came to %s: %w", address, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// tokenIn gives the token in a mail, or none if it is one to somebody else, or has none.
func tokenIn(file, address string) (string, error) {
	opened, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer opened.Close()
	message, err := mail.ReadMessage(opened)
	if err != nil {
		return "", err
	}
	to, err := message.Header.AddressList("To")
	if err != nil {
		return "", err
	}
	if len(to) != 1 || to[0].Address != address {
		return "", nil
	}
	text, err := plainText(message)
	return mailedToken.FindString(text), err
}

// plainText gives the text of a mail that has it as text and as HTML.
func plainText(message *mail.Message) (string, error) {
	_, parameters, err := mime.ParseMediaType(message.Header.Get("Content-Type"))
	if err != nil {
		return "", err
	}
	parts := multipart.NewReader(message.Body, parameters["boundary"])
	for {
		part, err := parts.NextPart() // It takes quoted-printable off by itself.
		if errors.Is(err, io.EOF) {
			return "", errors.New("the mail has no plain text")
		} else if err != nil {
			return "", err
		}
		kind, _, err := mime.ParseMediaType(part.Header.Get("Content-Type"))
		if err != nil {
			return "", err
		}
		if kind != "text/plain" {
			continue
		}
		var text io.Reader = part
		if part.Header.Get("Content-Transfer-Encoding") == "base64" {
			text = base64.NewDecoder(base64.StdEncoding, part)
		}
		bytes, err := io.ReadAll(text)
		return string(bytes), err
	}
}
